/* Files that one process opens for another (passed_files.c). The confined VMM opens nothing: a client opens what a disk or network needs, by the same code
 * that the VMM would have used, and sends the files along; the VMM goes through that code again, and takes each file where it would have opened it. */
#ifndef NADIR_HOST_LINUX_PASSED_FILES_H
#define NADIR_HOST_LINUX_PASSED_FILES_H

#include <stdbool.h>
#include <sys/types.h>

#define PASSED_FILES_MAX 32

struct passed_files {
	int fd[PASSED_FILES_MAX]; /* -1: taken */
	unsigned count, next;
};

/* From now on this thread's files are noted, or taken from those noted. `files` is the caller's until passed_end. */
void passed_record(struct passed_files *files);
void passed_take(struct passed_files *files);
void passed_end(void);

/* Record nothing for a while: what is opened is closed again. */
struct passed_files *passed_suspend(void);
void passed_resume(struct passed_files *files);

/* Whether this thread records or takes: only what files can do is possible; whether it takes: nothing is made anew, and paths mean nothing. */
bool passed_on(void);
bool passed_taking(void);

/* As open, or the next file. */
int passed_open(const char *path, int flags, mode_t mode);
/* The next file; -1 and errno: there is none. */
int passed_next(void);
/* Note one that was made otherwise, if this thread records; returns it. */
int passed_note(int fd);
/* Close what is left. */
void passed_close(struct passed_files *files);

#endif
