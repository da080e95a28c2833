/* Self-confinement of the process (A7). */
#ifndef NADIR_HOST_LINUX_SANDBOX_H
#define NADIR_HOST_LINUX_SANDBOX_H

/* Let the confined process accept connections at this listening socket; before sandbox_enter. */
void sandbox_allow_accept(int fd);

/* Confine all threads of the process for good: from now on only the system calls that a running VM needs are possible; others are not
 * carried out, and end the process by SIGSYS after one line that names them. Call when every file is open and every thread exists.
 * Messages may be sent to space_socket alone (-1: none). 0 or -errno. */
int sandbox_enter(int space_socket);

#endif
