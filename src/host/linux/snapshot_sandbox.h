/* Confinement of the process that writes snapshots (snapshot.c). */
#ifndef NADIR_HOST_LINUX_SNAPSHOT_SANDBOX_H
#define NADIR_HOST_LINUX_SNAPSHOT_SANDBOX_H

/* From now on the process, which has one thread, can make, write and rename files below the folder, read those below `base` (-1: none), and use files that
 * are open; hardly anything else: no process, program, socket, signal or executable memory. 0 or -errno. */
int snapshot_sandbox_enter(int folder, int base);

#endif
