/* Exceptions and interrupts of the host: generated code's faults go to the core's handler, pages of tables come when they are touched, and everything
 * else that is an exception is a bug of this program. */
#include "arch/exception.h"
#include "host/metal/apic.h"
#include "host/metal/cpu.h"
#include "host/metal/irq.h"
#include "host/metal/log.h"
#include "host/metal/map.h"
#include "host/metal/thread.h"
#include "host/port.h"

static bool generated_code(struct frame *frame, u64 address)
{
	host_trap_handler handler = this_thread() ? this_thread()->trap_handler : NULL;
	struct host_trap trap = {
		.pc = frame->rip, .vector = (u32)frame->vector, .error_code = (u32)frame->error, .address = address, .rflags = frame->rflags
	};
	if (!handler || !handler(&trap))
		return false;
	frame->rip = trap.pc;
	return true;
}

static void exception(struct frame *frame)
{
	u64 address = frame->vector == VEC_PF ? read_cr2() : 0;
	if (frame->vector == VEC_PF && !(frame->error & PF_P) && map_touch(address))
		return;
	bool mine = frame->vector != VEC_DF && frame->vector != VEC_MC && frame->vector != VEC_NMI;
	if (mine && generated_code(frame, address))
		return;
	log_panic_frame(frame, address);
}

static void interrupt(u64 vector)
{
	struct cpu *cpu = this_cpu();
	if (vector == VECTOR_SPURIOUS)
		return;
	if (vector == VECTOR_SCHEDULE) {
		cpu->resched = true;
		return;
	}
	apic_eoi();
	if (vector == VECTOR_TIMER)
		thread_tick();
	else if (vector == VECTOR_POSTED)
		return; /* the guest that it was meant for has left */
	else if (vector == VECTOR_WAKE)
		cpu->resched = true;
	else if (vector == VECTOR_CALL)
		cpu_called();
	else
		irq_handle((u8)vector);
}

struct frame *trap_dispatch(struct frame *frame);
struct frame *trap_dispatch(struct frame *frame)
{
	if (frame->vector == VEC_NMI) {
		log_stop_if_panicking();
		return frame;
	}
	if (frame->vector < 32) {
		exception(frame);
		return frame;
	}
	interrupt(frame->vector);
	return this_cpu()->resched ? thread_switch(frame) : frame;
}
