/* Loading libraries (library.h). */
#include "host/linux/library.h"

#include <dlfcn.h>

bool library_load(const char *file, const char *const *names, void **functions, unsigned count, const char **why)
{
	void *library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
	for (unsigned i = 0; library && i < count; i++) {
		functions[i] = dlsym(library, names[i]);
		if (!functions[i])
			library = NULL;
	}
	*why = library ? NULL : dlerror();
	return library;
}
