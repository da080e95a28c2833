/* `nadir probe`: collect the facts, then say them, to people or as JSON.
 * Intel SDM volume 2, CPUID; AMD APM volume 3, leaf 0x8000000A; what VT-x offers is told by Linux in /proc/cpuinfo
 * ("vmx flags"), since its capability MSRs cannot be read by a process. */
#define _GNU_SOURCE
#include "host/linux/probe.h"

#include <json-c/json.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cpu/host_cpuid.h"
#include "engine/engine.h"
#include "host/linux/probe_kvm.h"
#include "host/linux/sandbox.h"
#include "host/port.h"


struct fact {
	const char *name;
	u32 leaf;
	u8 subleaf, reg, bit;
};

static const struct fact vectors[] = {
	{ "SSE2", 1, 0, CPUID_EDX, 26 },   { "SSE3", 1, 0, CPUID_ECX, 0 },    { "SSSE3", 1, 0, CPUID_ECX, 9 },
	{ "SSE4.1", 1, 0, CPUID_ECX, 19 }, { "SSE4.2", 1, 0, CPUID_ECX, 20 }, { "AVX", 1, 0, CPUID_ECX, 28 },
	{ "AVX2", 7, 0, CPUID_EBX, 5 },    { "FMA", 1, 0, CPUID_ECX, 12 },    { "AVX-512", 7, 0, CPUID_EBX, 16 },
	{ "AES", 1, 0, CPUID_ECX, 25 },    { "SHA", 7, 0, CPUID_EBX, 29 },
};

/* AMD-V's features, where SVM is visible. */
static const struct fact svm_features[] = {
	{ "nested paging", 0x8000000a, 0, CPUID_EDX, 0 },   { "next-RIP save", 0x8000000a, 0, CPUID_EDX, 3 },
	{ "VMCB clean bits", 0x8000000a, 0, CPUID_EDX, 5 }, { "flush by ASID", 0x8000000a, 0, CPUID_EDX, 6 },
	{ "decode assists", 0x8000000a, 0, CPUID_EDX, 7 },  { "AVIC", 0x8000000a, 0, CPUID_EDX, 13 },
	{ "virtual GIF", 0x8000000a, 0, CPUID_EDX, 16 },
};

/* Words of the "vmx flags" line. */
static const struct {
	const char *word, *name;
} vmx_features[] = {
	{ "ept", "EPT" },
	{ "ept_ad", "EPT accessed/dirty bits" },
	{ "ept_1gb", "EPT 1-GiB pages" },
	{ "vpid", "VPID" },
	{ "unrestricted_guest", "unrestricted guest" },
	{ "tpr_shadow", "TPR shadow" },
	{ "vapic", "APIC virtualization" },
	{ "vapic_reg", "APIC register virtualization" },
	{ "vid", "virtual interrupt delivery" },
	{ "posted_intr", "posted interrupts" },
	{ "preemption_timer", "preemption timer" },
	{ "pml", "page-modification logging" },
	{ "shadow_vmcs", "VMCS shadowing" },
	{ "ept_violation_ve", "#VE" },
};

static const struct {
	const char *signature, *name;
} hypervisors[] = {
	{ "KVMKVMKVM\0\0\0", "KVM" },     { "Microsoft Hv", "Hyper-V" },    { "VMwareVMware", "VMware" },
	{ "XenVMMXenVMM", "Xen" },        { "TCGTCGTCGTCG", "QEMU's TCG" }, { "bhyve bhyve ", "bhyve" },
	{ "VBoxVBoxVBox", "VirtualBox" }, { " lrpepyh  vr", "Parallels" },  { "ACRNACRNACRN", "ACRN" },
	{ "QNXQVMBSQG\0\0", "QNX" },
};

#define WORDS_MAX 16

struct word_list {
	unsigned count;
	const char *word[WORDS_MAX];
};

struct machine {
	char vendor[13], model[49], hypervisor[32]; /* hypervisor: "" where none is visible */
	unsigned family, number, stepping;
	unsigned cpus;
	u64 memory, memory_free; /* bytes */
	bool vmx, svm;
	struct word_list vectors, features; /* features of VMX or SVM */
	struct kvm_report kvm;
	unsigned landlock; /* its version; 0: none */
	bool namespaces;   /* the machine may be shut into some */
	const struct engine_ops *chosen; /* NULL: none can run */
	char reason[640];
};

/* ---- facts ---- */

static bool holds(const struct fact *f)
{
	return host_cpuid_checked(f->leaf, f->subleaf).reg[f->reg] >> f->bit & 1;
}

static void collect(struct word_list *list, const struct fact *facts, size_t count)
{
	for (size_t i = 0; i < count && list->count < WORDS_MAX; i++)
		if (holds(&facts[i]))
			list->word[list->count++] = facts[i].name;
}

static void read_processor(struct machine *m)
{
	struct cpuid_regs r = host_cpuid(0, 0);
	memcpy(m->vendor, &r.reg[CPUID_EBX], 4);
	memcpy(m->vendor + 4, &r.reg[CPUID_EDX], 4);
	memcpy(m->vendor + 8, &r.reg[CPUID_ECX], 4);
	for (u32 i = 0; i < 3; i++) {
		r = host_cpuid_checked(0x80000002 + i, 0);
		memcpy(m->model + 16 * i, r.reg, 16);
	}
	u32 signature = host_cpuid(1, 0).reg[CPUID_EAX];
	m->family = signature >> 8 & 15;
	m->number = (signature >> 4 & 15) | (signature >> 12 & 0xf0);
	m->stepping = signature & 15;
	if (m->family == 15)
		m->family += signature >> 20 & 0xff;
	m->vmx = host_cpuid(1, 0).reg[CPUID_ECX] >> 5 & 1;
	m->svm = host_cpuid_checked(0x80000001, 0).reg[CPUID_ECX] >> 2 & 1;
}

static void read_hypervisor(struct machine *m)
{
	char signature[13] = { 0 };
	if (!(host_cpuid(1, 0).reg[CPUID_ECX] >> 31))
		return;
	struct cpuid_regs r = host_cpuid(0x40000000, 0);
	memcpy(signature, &r.reg[CPUID_EBX], 12);
	snprintf(m->hypervisor, sizeof(m->hypervisor), "one that calls itself '%s'", signature);
	for (size_t i = 0; i < ARRAY_SIZE(hypervisors); i++)
		if (!memcmp(signature, hypervisors[i].signature, 12))
			snprintf(m->hypervisor, sizeof(m->hypervisor), "%s", hypervisors[i].name);
}

static bool has_word(const char *line, const char *word)
{
	size_t length = strlen(word);
	for (const char *p = line; (p = strstr(p, word)); p += length)
		if (p[-1] == ' ' && (p[length] == ' ' || p[length] == '\n' || !p[length]))
			return true;
	return false;
}

static void read_vmx_features(struct machine *m)
{
	FILE *file = fopen("/proc/cpuinfo", "r");
	char *line = NULL;
	size_t size = 0;
	while (file && getline(&line, &size, file) > 0) {
		if (strncmp(line, "vmx flags", 9) != 0)
			continue;
		for (size_t i = 0; i < ARRAY_SIZE(vmx_features) && m->features.count < WORDS_MAX; i++)
			if (has_word(line + 1, vmx_features[i].word))
				m->features.word[m->features.count++] = vmx_features[i].name;
		break;
	}
	free(line);
	if (file)
		fclose(file);
}

static void read_resources(struct machine *m)
{
	struct sysinfo info;
	cpu_set_t set;
	m->cpus = sched_getaffinity(0, sizeof(set), &set) ? 1 : (unsigned)CPU_COUNT(&set);
	if (sysinfo(&info))
		return;
	m->memory = (u64)info.totalram * info.mem_unit;
	m->memory_free = (u64)(info.freeram + info.bufferram) * info.mem_unit;
}

/* The first engine of the table that can run; the table is in order of preference. */
static void choose_engine(struct machine *m)
{
	const char *why = NULL;
	for (size_t i = 0; i < ENGINE_COUNT && !m->chosen; i++)
		if (engine_preferred(engines[i], &why))
			m->chosen = engines[i];
	if (!m->chosen)
		snprintf(m->reason, sizeof(m->reason), "%s", why ? why : "no engine can run here");
	else if (m->chosen == &engine_kvm)
		snprintf(m->reason, sizeof(m->reason), "the host's KVM passed the trial, and nothing is faster than the hardware");
	else if (m->vmx || m->svm)
		snprintf(m->reason, sizeof(m->reason),
			 "it needs no help from the host, and a process cannot use the hardware without KVM");
	else if (m->kvm.opens)
		snprintf(m->reason, sizeof(m->reason),
			 "it needs no hardware for virtualization, this machine shows none, and its KVM failed the trial");
	else
		snprintf(m->reason, sizeof(m->reason),
			 "it needs no hardware for virtualization, and this machine shows none");
}

/* Tried by a process that ends. */
static bool try_namespaces(void)
{
	int status;
	pid_t pid = fork();
	if (!pid)
		_exit(!sandbox_leave_namespaces());
	return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) && !WEXITSTATUS(status);
}

static void collect_facts(struct machine *m)
{
	m->landlock = sandbox_landlock_version();
	m->namespaces = try_namespaces();
	read_processor(m);
	read_hypervisor(m);
	read_resources(m);
	collect(&m->vectors, vectors, ARRAY_SIZE(vectors));
	if (m->vmx)
		read_vmx_features(m);
	if (m->svm)
		collect(&m->features, svm_features, ARRAY_SIZE(svm_features));
	probe_kvm(&m->kvm);
	choose_engine(m);
}

/* ---- in words ---- */

static void print_words(FILE *out, const struct word_list *list)
{
	for (unsigned i = 0; i < list->count; i++)
		fprintf(out, "%s%s", i ? ", " : "", list->word[i]);
}

static void print_hardware(FILE *out, const struct machine *m)
{
	fprintf(out, "Processor        %s (%s, family %u, model %u, stepping %u)\n", m->model, m->vendor, m->family,
		m->number, m->stepping);
	fprintf(out, "Resources        %u CPU%s, %llu MiB of memory, %llu MiB of it free\n", m->cpus,
		m->cpus == 1 ? "" : "s", (unsigned long long)(m->memory >> 20),
		(unsigned long long)(m->memory_free >> 20));
	fprintf(out, "Instruction sets ");
	print_words(out, &m->vectors);
	fprintf(out, "\nHypervisor       %s\n",
		*m->hypervisor ? m->hypervisor : "none visible: this seems to be real hardware");
	fprintf(out, "Virtualization   ");
	if (!m->vmx && !m->svm)
		fprintf(out, "no VT-x (VMX) and no AMD-V (SVM) visible");
	else
		fprintf(out, "%s, with ", m->vmx ? "VT-x (VMX)" : "AMD-V (SVM)");
	if ((m->vmx || m->svm) && !m->features.count)
		fprintf(out, "nothing that the host's kernel tells");
	print_words(out, &m->features);
	fputc('\n', out);
}

static void print_kvm(FILE *out, const struct kvm_report *k)
{
	fprintf(out, "/dev/kvm         %s", k->opens ? "opens" : k->present ? "present, but does not open" : "absent");
	if (k->api_version >= 0)
		fprintf(out, ", API version %d", k->api_version);
	fprintf(out, "\nKVM, tried       %s\n", k->verdict);
	if (!k->opens)
		return;
	fprintf(out, "                 %u of %u steps of the trial guest worked", k->steps_passed, k->steps);
	if (k->kinstructions_per_s)
		fprintf(out, "; its loop ran at %.1f million instructions a second",
			(double)k->kinstructions_per_s / 1000);
	for (unsigned i = 0, n = 0; i < k->steps; i++)
		if (k->failed >> i & 1)
			fprintf(out, "%s%s", n++ ? ", " : "\n                 what did not: ", probe_kvm_step(i + 1));
	fputc('\n', out);
}

static void print_confinement(FILE *out, const struct machine *m)
{
	fprintf(out, "Confinement      seccomp, ");
	if (m->landlock)
		fprintf(out, "Landlock (version %u), ", m->landlock);
	else
		fprintf(out, "no Landlock: the kernel has none, ");
	fprintf(out, "%s\n", m->namespaces ? "namespaces of its own" : "no namespaces: they are not allowed to everybody here");
}

static void print_engines(FILE *out, const struct machine *m)
{
	for (size_t i = 0; i < ENGINE_COUNT; i++) {
		const char *why = "";
		bool available = engines[i]->available(&why), preferred = engine_preferred(engines[i], &why);
		fprintf(out, "%-16s %-8s %s%s%s\n", i ? "" : "Engines", engines[i]->name, engines[i]->description,
			!available ? " - not here: " : !preferred ? " - only if asked for: " : "", preferred ? "" : why);
	}
	fprintf(out, "Choice           %s, because %s\n", m->chosen ? m->chosen->name : "none", m->reason);
}

/* ---- as JSON ---- */

static void add_string(struct json_object *to, const char *key, const char *value)
{
	json_object_object_add(to, key, json_object_new_string(value));
}

static void add_number(struct json_object *to, const char *key, u64 value)
{
	json_object_object_add(to, key, json_object_new_int64((int64_t)value));
}

static void add_bool(struct json_object *to, const char *key, bool value)
{
	json_object_object_add(to, key, json_object_new_boolean(value));
}

static void add_words(struct json_object *to, const char *key, const struct word_list *list)
{
	struct json_object *array = json_object_new_array();
	for (unsigned i = 0; i < list->count; i++)
		json_object_array_add(array, json_object_new_string(list->word[i]));
	json_object_object_add(to, key, array);
}

static void add_processor(struct json_object *root, const struct machine *m)
{
	struct json_object *o = json_object_new_object();
	add_string(o, "vendor", m->vendor);
	add_string(o, "model_name", m->model);
	add_number(o, "family", m->family);
	add_number(o, "model", m->number);
	add_number(o, "stepping", m->stepping);
	add_number(o, "cpus", m->cpus);
	add_words(o, "vector_extensions", &m->vectors);
	add_bool(o, "vmx", m->vmx);
	add_bool(o, "svm", m->svm);
	add_words(o, "virtualization_features", &m->features);
	json_object_object_add(root, "processor", o);
}

static void add_kvm(struct json_object *root, const struct kvm_report *k)
{
	struct json_object *o = json_object_new_object();
	add_bool(o, "present", k->present);
	add_bool(o, "opens", k->opens);
	json_object_object_add(o, "api_version", k->api_version < 0 ? NULL : json_object_new_int(k->api_version));
	add_bool(o, "runs_unmodified_kernels", k->usable);
	add_number(o, "trial_steps", k->steps);
	add_number(o, "trial_steps_passed", k->steps_passed);
	struct json_object *not = json_object_new_array();
	for (unsigned i = 0; i < k->steps; i++)
		if (k->failed >> i & 1)
			json_object_array_add(not, json_object_new_string(probe_kvm_step(i + 1)));
	json_object_object_add(o, "trial_steps_failed", not);
	add_number(o, "trial_instructions_per_second", k->kinstructions_per_s * 1000);
	add_string(o, "verdict", k->verdict);
	json_object_object_add(root, "kvm", o);
}

static void add_engines(struct json_object *root, const struct machine *m)
{
	struct json_object *array = json_object_new_array();
	for (size_t i = 0; i < ENGINE_COUNT; i++) {
		struct json_object *o = json_object_new_object();
		const char *why = NULL;
		bool available = engines[i]->available(&why), preferred = engine_preferred(engines[i], &why);
		add_string(o, "name", engines[i]->name);
		add_string(o, "description", engines[i]->description);
		add_bool(o, "available", available);
		add_bool(o, "preferred", preferred);
		json_object_object_add(o, "why_not", preferred || !why ? NULL : json_object_new_string(why));
		json_object_array_add(array, o);
	}
	json_object_object_add(root, "engines", array);
	json_object_object_add(root, "choice", m->chosen ? json_object_new_string(m->chosen->name) : NULL);
	add_string(root, "reason", m->reason);
}

static void print_json(FILE *out, const struct machine *m)
{
	struct json_object *root = json_object_new_object();
	add_processor(root, m);
	add_number(root, "memory_bytes", m->memory);
	add_number(root, "memory_free_bytes", m->memory_free);
	json_object_object_add(root, "hypervisor", *m->hypervisor ? json_object_new_string(m->hypervisor) : NULL);
	add_kvm(root, &m->kvm);
	add_number(root, "landlock_version", m->landlock);
	add_bool(root, "namespaces", m->namespaces);
	add_engines(root, m);
	fprintf(out, "%s\n",
		json_object_to_json_string_ext(root, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(root);
}

int probe_main(bool json, FILE *out)
{
	struct machine m = { 0 };
	fflush(out); /* the trial forks */
	collect_facts(&m);
	if (json)
		print_json(out, &m);
	else {
		print_hardware(out, &m);
		print_kvm(out, &m.kvm);
		print_confinement(out, &m);
		print_engines(out, &m);
	}
	return fflush(out) || ferror(out) ? 1 : 0;
}
