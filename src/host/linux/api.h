/* The control API of a VM (api.c): from an HTTP request to a response. docs/api.md describes it for its users.
 *
 * It knows a VM by struct api_vm alone, so that it can be tested without one. */
#ifndef NADIR_HOST_LINUX_API_H
#define NADIR_HOST_LINUX_API_H

#include "host/linux/counters.h"
#include "host/linux/http.h"
#include "host/linux/passed_files.h"
#include "host/linux/snapshot_wish.h"

/* What there is to know that does not change. Strings are the VM's. */
struct api_info {
	const char *name; /* or NULL */
	const char *engine, *kernel, *serial;
	unsigned cpus;
	u64 memory;
};

/* A disk or network: "disk0", "net1". */
#define API_ID_SIZE 16
struct api_device {
	const char *kind; /* "disk" or "net" */
	unsigned index, slot; /* slot: its PCI device, or 0 */
	bool leaving; /* its guest was asked to let go of it */
	const char *option;
};
void api_device_id(const char *kind, unsigned index, char id[API_ID_SIZE]);

struct api_vm {
	struct api_info info;
	bool (*paused)(void *opaque);
	/* Each returns when it is done; NULL, or why it cannot be. */
	const char *(*pause)(void *opaque);
	const char *(*resume)(void *opaque);
	const char *(*power_button)(void *opaque);
	const char *(*reset)(void *opaque);
	const char *(*stop)(void *opaque);
	const char *(*resize)(void *opaque, u64 balloon);
	/* Take a snapshot; *name, of 128 bytes, is its name. */
	const char *(*snapshot)(void *opaque, const struct snapshot_wish *wish, char name[128]);
	/* Add a disk or network, as the option says; `files` came with the request, and those that are taken are the VM's. */
	const char *(*add)(void *opaque, const char *kind, const char *option, struct passed_files *files, struct api_device *device);
	/* Ask the guest for one. */
	const char *(*remove)(void *opaque, const char *kind, unsigned index);
	void (*devices)(void *opaque, void (*each)(void *list, const struct api_device *device), void *list);
	/* The display as a PNG file, which the caller frees. */
	const char *(*screenshot)(void *opaque, u8 **file, size_t *size);
	void (*count)(void *opaque, struct counters *counters);
	void *opaque;
};

/* What the connection is for from now on. */
enum api_stream { API_NO_STREAM, API_EVENTS, API_CONSOLE };

struct api_response {
	int status;
	const char *type; /* of the body: a media type */
	char *body; /* the caller frees it; NULL: none */
	size_t size;
	enum api_stream stream; /* after the headers, if status is 200 or 101 */
};

void api_answer(const struct api_vm *vm, const struct http_request *request, struct api_response *response);
/* A response to a request that was none. */
void api_refuse(int status, const char *why, struct api_response *response);

/* One line of the stream of events; `detail` may be NULL. The caller frees it; NULL: out of memory. */
char *api_event(const char *event, const char *detail);

#endif
