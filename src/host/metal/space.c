/* Spaces (host/port.h): this host has none, so that all user code is translated. */
#include "host/port.h"

u64 host_space_hole(const char **why)
{
	*why = "this host has one address space";
	return 0;
}

u64 host_space_leave(void)
{
	return 0;
}

u64 host_space_enter_place(void)
{
	return 0;
}

struct host_space *host_space_create(const struct host_code *code, void *ram, u64 ram_size, size_t tables_size)
{
	return NULL;
}

void host_space_destroy(struct host_space *space)
{
}

int host_space_map(struct host_space *space, u64 gla, void *hva, u64 size, enum host_space_access access)
{
	return -1;
}

int host_space_unmap(struct host_space *space, u64 gla, u64 size)
{
	return -1;
}

enum host_space_exit host_space_run(struct host_space *space, struct host_trap *trap, bool in_place)
{
	return SPACE_GONE;
}

bool host_space_runs_in_place(void)
{
	return false;
}

bool host_space_break(struct host_space *space, const u64 *address, unsigned count)
{
	return false;
}
