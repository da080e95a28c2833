"""The list of runs: image, engine options and what must come out.

A run is a dictionary: `image` (SOURCE without .c, and its width), `append` (command line), `cpu` (CPU model), `cpus`,
`status` (exit status, or several, or `any_status` but for a signal; 1 is success by the debug-exit convention (v << 1) | 1), `output` (text that must
appear), `long` (takes a minute: only with --long), `options` (nadir's), `in_place` (user code must have been run
in place, at least so often, where the host allows it), `qemu_status`, `not_on_qemu` (why QEMU's TCG cannot run it). `engines` restricts the engines.
"""

# Those that end otherwise than by the debug-exit port; see runs().
HOSTILE = {
    'triple': (32, 64),
    'spin': (64,),
    'chaos': (32, 64),
    'garbage': (32, 64),
}

# How many checks Bochs 2.7 fails with an Intel model (corei7_skylake_x), against the manual; None: it does not get through.
BOCHS = {
    'apic': (9, 'no error for illegal vectors; the TSC deadline is not cleared; x2APIC takes reserved bits'),
    'gates': (1, '#SS with a selector for a non-canonical IST'),
    'iret': (1, '#NP for an absent SS'),
    'b4_transitions': (1, 'the trap for TF that SYSRET has set comes an instruction late'),
    'msr_cpuid': (2, 'says of no hypervisor'),
    'pic_pit': (None, 'neither polling nor an NMI at LINT0'),
    'ioapic': (None, 'no remote IRR'),
    'smc': (10, 'an instruction across pages whose second page is remapped stays'),
    'place': (1780, 'an instruction across pages whose second page is absent stays'),
    'place_code': (180, 'user code may not ask for system registers'),
    'fpu_xsave': (100, 'XSAVEC loses AVX state'),
}

# What a KVM without hardware below it runs (Linux' PVM), when its trial (`nadir probe`) fails: all but the runs named here, by the start of their
# names, with the reason. Most of what is the matter is the matter with QEMU on it, too.
KVM_SOFTWARE = {
    'INT n and other software interrupts of user code end in #UD': (
        'b1_ring', 'b4_transitions', 'exceptions', 'gates', 'iret', 'b7_hidden-64', 'debuggee', 'v86', 'io_permission', 'segments', 'smc',
        'paging', 'place', 'narrow', 'legacy', 'b5_interrupts-64', 'debug-64', 'double_fault-64', 'neighbours', 'strings-64', 'flags-64',
        'mmio-64', 'alignment-64', 'garbage'),
    'user code runs with RFLAGS of the host: neither IOPL nor IF as set': ('b3_sensitive', ),
    'no paging but in long mode': ('alignment-32', 'flags-32', 'strings-32', 'mmio-32', 'double_fault-32', 'debug-32', 'b5_interrupts-32',
                                   'b7_hidden-32', 'task_switch', 'real_mode'),
    'an open interrupt window is noticed only after many instructions': ('apic', 'pic_pit', 'paravirt 1', 'paravirt 2 CPUs', 'paravirt 4'),
    'CPUID shows features of the host that KVM was told to hide': ('msr_cpuid', 'fpu_xsave', 'torture'),
    'too slow, with interpreted kernel code': ('litmus', 'smp 4', 'startup 4 CPUs'),
}

# Source files and the widths they are built in; behind them the rows of MISSION.md they show.
IMAGES = {
    'b1_ring': (32, 64),  # B1
    'b3_sensitive': (32, 64),  # B3
    'segments': (32, 64),
    'exceptions': (32, 64),
    'gates': (32, 64),  # B4
    'b4_transitions': (32, 64),  # B4
    'iret': (32, 64),  # B4
    'task_switch': (32,),
    'v86': (32,),
    'real_mode': (32,),
    'io_permission': (32, 64),
    'alignment': (32, 64),
    'neighbours': (32, 64),
    'flags': (32, 64),
    'b7_hidden': (32, 64),  # B7
    'paging': (32, 64),  # E, B6
    'b5_interrupts': (32, 64),  # B5
    'smc': (32, 64),
    'strings': (32, 64),
    'apic': (32, 64),  # F1
    'apic_exits': (64,),  # B8, F2
    'pic_pit': (32,),  # F1
    'ioapic': (32,),  # F1
    'mmio': (32, 64),  # E7
    'debug': (32, 64),
    'debuggee': (32, 64),
    'msr_cpuid': (32, 64),  # H5
    'legacy': (32,),
    'narrow': (32,),
    'fpu_xsave': (32, 64),
    'double_fault': (32, 64),
    'place': (64,),
    'place_state': (64,),
    'place_code': (64,),
}

# What tests/metal runs: a neighbour that never ends unless told to, one that wants a disk and a network of a certain kind, and those that come after each other.
METAL = {
    'noise': (64,),
    'virtio': (64,),
    'scrub': (64,),
    'echo': (64,),
}


# 64-bit guests for several CPUs, and the runs of each.
SMP = {
    'smp': [{'cpus': cpus} for cpus in (1, 2, 4)],
    'litmus': [{'cpus': cpus, 'append': 'rounds=100'} for cpus in (2, 4)],
    'startup': [{'cpus': cpus} for cpus in (2, 4)] +
               [{'cpus': cpus, 'append': 'reboots=8', 'name': f'startup {cpus} CPUs, reboots',
                 'not_on_qemu': 'it is told not to reboot'} for cpus in (2, 4)],
    'paravirt': [{'cpus': cpus, 'not_on_qemu': 'TCG has no such interface'} for cpus in (1, 2, 4)] +
                [{'cpus': 2, 'append': f'off={bit}', 'cpu': f'max,-{name}', 'name': f'paravirt without {name}', 'not_on_qemu': 'the same'}
                 for bit, name in ((5, 'kvm-steal-time'), (6, 'kvm-pv-eoi'))],
    'torture': [{'cpus': cpus, 'append': 'actions=20000'} for cpus in (2, 4)] +
               [{'cpus': 4, 'append': 'seconds=60 seed=2', 'name': 'torture for a minute', 'long': True, 'timeout': 180}],
}


def smp_run(source, run):
    append = f'cpus={run["cpus"]} {run.get("append", "")}'.strip()
    return dict(run, image=f'{source}-64', name=run.get('name', f'{source} {run["cpus"]} CPUs'), append=append)


# Those with 64-bit code at CPL 3.
DIRECT = ('alignment', 'b1_ring', 'b3_sensitive', 'b5_interrupts', 'exceptions', 'fpu_xsave', 'io_permission', 'mmio', 'msr_cpuid', 'paging',
          'smc', 'strings')


# Those with user code that runs in place, and how often it does at least: a tenth of what was counted.
PLACE = {'place': 1000, 'place_state': 500, 'place_code': 5000}


def runs():
    result = [smp_run(source, run) for source, wanted in SMP.items() for run in wanted]
    for source, widths in IMAGES.items():
        for bits in widths:
            result.append({'image': f'{source}-{bits}'})
    for mode, what in enumerate(('loop', 'storm', 'halt')):
        result.append({'name': f'noise-64 {what}', 'image': 'noise-64', 'append': f'mode={mode} rounds=20'})
    for model in ('x86-64', 'x86-64-v2', 'x86-64-v3'):
        result.append({'name': f'msr_cpuid-64 {model}', 'image': 'msr_cpuid-64', 'cpu': model, 'engines': ['step', 'bt'],
                       'not_on_qemu': 'the models are nadir\'s'})
    for bits in HOSTILE['triple']:
        result.append({'image': f'triple-{bits}', 'status': 3, 'output': 'triple fault', 'qemu_status': 0})
    result.append({'image': 'spin-64', 'status': 3, 'output': 'spins with interrupts disabled', 'options': ['--hang-timeout', '1'],
                   'not_on_qemu': 'would spin for ever'})
    # User code in spaces, whatever it does.
    for source in DIRECT:
        result.append({'name': f'{source}-64 direct', 'image': f'{source}-64', 'options': ['--direct', 'always'], 'engines': ['bt'],
                       'not_on_qemu': 'the same as without'})
    for source, times in PLACE.items():
        result.append({'name': f'{source}-64 translated', 'image': f'{source}-64', 'options': ['--direct', 'off'], 'engines': ['bt'],
                       'not_on_qemu': 'the same as without'})
        result.append({'name': f'{source}-64 in place', 'image': f'{source}-64', 'options': ['--direct', 'always', '--stats'], 'engines': ['bt'],
                       'in_place': times, 'not_on_qemu': 'the same as without'})
    # Whatever becomes of these guests, nadir must end in order: powered off or reset (0), done (1), or with a report (3).
    for seed in (1, 2, 3):
        for bits in HOSTILE['chaos']:
            result.append({'name': f'chaos-{bits} {seed}', 'image': f'chaos-{bits}', 'append': f'seed={seed}', 'status': (0, 1, 3),
                           'options': ['--no-reboot', '--hang-timeout', '3'], 'not_on_qemu': 'chance may end it in any way'})
            result.append({'name': f'chaos-{bits} {seed} all', 'image': f'chaos-{bits}', 'append': f'seed={seed} all=1',
                           'any_status': True, 'options': ['--no-reboot', '--hang-timeout', '3'],
                           'not_on_qemu': 'chance may end it in any way'})
        for bits in HOSTILE['garbage']:
            result.append({'name': f'garbage-{bits} {seed}', 'image': f'garbage-{bits}', 'append': f'seed={seed}',
                           'not_on_qemu': 'it leaves CPL 3 by IRET with VM, or dies of an assertion'})
    return result


if __name__ == '__main__':  # what the build makes: one "SOURCE WIDTH" a line
    for source, widths in {**IMAGES, **HOSTILE, **METAL}.items():
        for bits in widths:
            print(source, bits)
    for source in SMP:
        print(source, 64)
