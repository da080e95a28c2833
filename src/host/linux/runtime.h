/* Where the control sockets of running VMs are (runtime.c), and what names VMs may have. */
#ifndef NADIR_HOST_LINUX_RUNTIME_H
#define NADIR_HOST_LINUX_RUNTIME_H

#include "arch/types.h"

#include <limits.h>
#include <sys/un.h>

#define VM_NAME_MAX 64
/* The longest path that a socket can have. */
#define SOCKET_PATH_SIZE sizeof(((struct sockaddr_un *)0)->sun_path)

/* Whether it is a name: letters, digits, '.', '_' and '-', not at the start. */
bool runtime_name_ok(const char *name);
/* The folder of the sockets, $XDG_RUNTIME_DIR/nadir or its stand-in; made if it is missing and `make` says so. 0, or -1 after one sentence on stderr (if
 * `make`: a folder that is not there is no mistake else). */
int runtime_folder(char path[PATH_MAX], bool make);
/* The socket of a running VM, by its name, or by its path if `who` contains a slash. 0, or -1 after one sentence on stderr. */
int runtime_socket(const char *who, char path[SOCKET_PATH_SIZE]);

/* Listen at a path. A socket that nobody listens at any more is replaced; whoever has the same `path` at the same time, one wins. The file is its user's
 * alone. The descriptor, or -1 after one sentence on stderr that names the option. */
int runtime_listen(const char *option, const char *path);
/* Connect. The descriptor, or a negative errno: -ECONNREFUSED, nobody listens any more. */
int runtime_connect(const char *path);
/* Remove a socket that a machine left; nothing else is removed. 0 or a negative errno. */
int runtime_remove_left(const char *path);

#endif
