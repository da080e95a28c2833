/* Self-confinement of the process (A7): three walls, each of which holds without the others. */
#ifndef NADIR_HOST_LINUX_SANDBOX_H
#define NADIR_HOST_LINUX_SANDBOX_H

#include <stdbool.h>

#include "host/linux/sandbox_thread.h"

/* Leave the host's network, and everything that has a path, for namespaces with nothing in them; files and sockets that are open stay
 * usable. While there is one thread. False: this kernel, or its administrator, does not allow it to everybody. */
bool sandbox_leave_namespaces(void);

/* Refuse the calling thread, and those it makes, to open, make, remove or execute files and to use TCP, as far as the kernel's Landlock knows
 * these; files that are open stay usable. 0, also where there is no Landlock, or -errno. */
int sandbox_lock_files(void);
/* The version of Landlock's interface; 0: the kernel has none. */
unsigned sandbox_landlock_version(void);

/* Let threads of that role accept connections at this listening socket; before sandbox_enter. */
void sandbox_allow_accept(int fd, enum sandbox_role role);

/* Let those that have to do with disks send and receive on these connected sockets; likewise. */
void sandbox_allow_sockets(const int *fd, unsigned count);

/* Let a network's threads receive messages on this socket, files with them; likewise. */
void sandbox_allow_messages(int fd);

/* Let the thread that adds disks and networks send messages on this socket, files with them; likewise. */
void sandbox_allow_sending(int fd);

/* Let a disk's thread submit to this io_uring, and wait for it; likewise. What it may be asked for was settled when it was made. */
void sandbox_allow_ring(int fd);

/* Disks and networks may be added later: let it receive files at any socket, look at them and lock them, and make threads; likewise. It can still make no process and
 * open nothing. */
void sandbox_allow_plugging(void);

/* The KVM engine is in use: requests to files from this one on that a running vCPU needs are possible; before sandbox_enter. */
void sandbox_allow_kvm(int file);

/* Confine all threads of the process for good: from now on only the system calls that a running VM needs are possible, and of these each thread has
 * those of its role: the caller's is SANDBOX_MAIN, others' what they were made with. What the process may not is not carried out, and ends it by SIGSYS
 * after one line that names it; what only this thread may not fails with EPERM, and is told once. Call when every file is open and every thread exists,
 * sandbox_threads_hold before there are any. Messages may be sent to space_socket alone (-1: none). 0 or -errno. */
int sandbox_enter(int space_socket);

#endif
