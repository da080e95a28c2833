/* Libraries that few machines need, loaded when one does (library.c): what they bring along takes milliseconds of every start and MiB of every process
 * else. */
#ifndef NADIR_HOST_LINUX_LIBRARY_H
#define NADIR_HOST_LINUX_LIBRARY_H

#include "arch/types.h"

/* Load the library `file`, and put the addresses of its functions `names` into `functions`, in the same order. False, and why: `file` stays loaded
 * otherwise until the process ends. Before the process is confined. */
bool library_load(const char *file, const char *const *names, void **functions, unsigned count, const char **why);

/* For a list of functions F(NAME), the members of a struct of pointers to PREFIX_NAME, and their names. */
#define LIBRARY_MEMBER(prefix, name) __typeof__(prefix##name) *name;
#define LIBRARY_NAME(prefix, name) #prefix #name,

#endif
