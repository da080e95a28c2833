/* VNC, the VMM's side (vnc.h). Nothing is drawn unless the process asks, which it does while a client looks. What the process says is not trusted: the
 * worst that it can do is to press keys. */
#define _GNU_SOURCE
#include "host/linux/vnc.h"

#include "host/linux/display.h"
#include "host/linux/rfb.h"
#include "host/linux/sandbox_thread.h"
#include "host/linux/trap.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define TRIES 100 /* ten milliseconds each: a guest that does not read its keyboard loses keys */

/* The one display of the process. */
static struct {
	int socket, wake; /* socket: 0 if there is none */
	u32 *picture; /* shared with the process */
	struct vm *vm;
	pthread_t thread;
	bool started;
	u32 width, height; /* of the last picture */
	u32 x, y; /* where the pointer was */
	u8 buttons;
} vnc;

int vnc_open(const char *where, bool confine)
{
	char password[RFB_PASSWORD_MAX + 1];
	int ends[2], listening = vnc_listen(where, password);
	if (listening < 0)
		return -1;
	vnc.picture = mmap(NULL, VGA_PICTURE_MAX, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	vnc.wake = eventfd(0, EFD_CLOEXEC);
	if (vnc.picture == MAP_FAILED || vnc.wake < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
		return vnc_complain(where, strerror(errno));
	pid_t pid = fork();
	if (!pid)
		vnc_serve(ends[1], listening, vnc.picture, *password ? password : NULL, confine);
	explicit_bzero(password, sizeof(password));
	close(ends[1]);
	close(listening);
	vnc.socket = ends[0];
	return pid < 0 ? vnc_complain(where, strerror(errno)) : 0;
}

/* ---- what the process says ---- */

static void pause_a_bit(void)
{
	nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
}

static void take_key(u16 code, bool down)
{
	for (unsigned i = 0; i < TRIES && !vm_key(vnc.vm, code, down); i++)
		pause_a_bit();
}

/* A place in the picture that was sent last, as the tablet tells it. */
static u16 scale(u32 at, u32 size)
{
	return size < 2 ? 0 : (u16)((u64)MIN(at, size - 1) * INPUT_POSITION_MAX / (size - 1));
}

/* Mere movement may be lost, if more comes than the guest takes; buttons wait. */
static void take_pointer(u32 x, u32 y, u8 buttons)
{
	const struct vm_pointer p = { .x = scale(x, vnc.width), .y = scale(y, vnc.height), .dx = (s32)x - (s32)vnc.x, .dy = (s32)vnc.y - (s32)y,
				      .buttons = buttons };
	for (unsigned i = 0; !vm_pointer(vnc.vm, &p) && buttons != vnc.buttons && i < TRIES; i++)
		pause_a_bit();
	vnc.x = x;
	vnc.y = y;
	vnc.buttons = buttons;
}

static bool send_picture(void)
{
	struct vnc_message m = { .kind = VNC_PICTURE };
	display_draw(vnc.vm, vnc.picture, &m.a, &m.b);
	vnc.width = m.a;
	vnc.height = m.b;
	return write(vnc.socket, &m, sizeof(m)) == sizeof(m);
}

static bool take_message(const struct vnc_message *m)
{
	switch (m->kind) {
	case VNC_KEY:
		take_key((u16)m->a, m->b);
		return true;
	case VNC_POINTER:
		take_pointer((u16)m->a, (u16)m->b, (u8)m->c);
		return true;
	case VNC_WANTED:
		return send_picture();
	default:
		return false;
	}
}

static void *thread(void *opaque)
{
	struct pollfd ready[] = { { .fd = vnc.socket, .events = POLLIN }, { .fd = vnc.wake, .events = POLLIN } };
	struct vnc_message m;
	trap_thread_init();
	for (;;) {
		if (poll(ready, ARRAY_SIZE(ready), -1) < 0 && errno != EINTR)
			break;
		if (ready[1].revents || (ready[0].revents && (read(vnc.socket, &m, sizeof(m)) != sizeof(m) || !take_message(&m))))
			break;
	}
	return NULL;
}

int vnc_start(struct vm *vm)
{
	if (!vnc.socket)
		return 0;
	vnc.vm = vm;
	int error = sandbox_thread_create(&vnc.thread, SANDBOX_DISPLAY, thread, NULL);
	vnc.started = !error;
	return error;
}

void vnc_stop(void)
{
	u64 one = 1;
	if (!vnc.started)
		return;
	if (write(vnc.wake, &one, sizeof(one)) == sizeof(one))
		pthread_join(vnc.thread, NULL);
	close(vnc.socket);
}
