/* The option parser: words separated by zero bytes. Whatever they are, it refuses them or leaves values within their
 * limits. */
#include "host/linux/options.h"
#include "input.h"

#include <stdlib.h>
#include <string.h>

#define WORDS_MAX 64

/* What the parser says is not looked at here. */
static void be_silent(void)
{
	static bool silent;
	if (!silent)
		stderr = fopen("/dev/null", "w");
	silent = true;
}

/* The next word, in memory of exactly its size. */
static char *take_word(struct input *in)
{
	size_t length = strnlen((const char *)in->bytes, in->left);
	char *word = malloc(length + 1);
	memcpy(word, in->bytes, length);
	word[length] = 0;
	length += length < in->left;
	in->bytes += length;
	in->left -= length;
	return word;
}

static void check(const struct run_options *o)
{
	CHECK(o->memory >= BIT(20) && o->memory <= BIT(40));
	CHECK(o->cpus >= 1 && o->cpus <= 64);
	CHECK(o->hang_timeout <= 86400);
	CHECK(o->append && o->cpu && o->serial);
	CHECK(!strcmp(o->engine, "auto") || !strcmp(o->engine, "step") || !strcmp(o->engine, "kvm") || !strcmp(o->engine, "bt") || !strcmp(o->engine, "lockstep"));
	CHECK(!strcmp(o->sandbox, "on") || !strcmp(o->sandbox, "off"));
	CHECK(!strchr(o->protocol, '|') && !strchr(o->on_crash, '|') && !strchr(o->log_level, '|'));
}

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t size)
{
	struct input in = { bytes, size };
	struct run_options options;
	char *word[WORDS_MAX + 2] = { strdup("run") };
	char *permuted[WORDS_MAX + 2];
	int count = 1;
	be_silent();
	while (in.left && count <= WORDS_MAX)
		word[count++] = take_word(&in);
	memcpy(permuted, word, sizeof(word));
	if (!options_parse(&options, count, permuted)) {
		check(&options);
		options_release(&options);
	}
	for (int i = 0; i < count; i++)
		free(word[i]);
	return 0;
}
