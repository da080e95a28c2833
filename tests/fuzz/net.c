/* Frames from anywhere: what makes a network card's work good in software, whatever the header says of them, and the options that describe networks. */
#include "host/linux/net_internal.h"
#include "host/linux/net_offload.h"
#include "input.h"
#include "lib/string.h"

static u8 *frame; /* on the heap, of the exact size, so that the sanitizer sees its ends */
static u64 given;

void *malloc(size_t size);
void free(void *p);

int net_complain(const char *what, const char *why)
{
	return -1;
}

static void emit(void *opaque, u8 *part, u32 size)
{
	u32 sum = 0;
	CHECK(size <= NET_FRAME_MAX);
	for (u32 i = 0; i < size; i++)
		sum += part[i];
	given += size + !sum;
}

static void options(struct input *in)
{
	struct net_wishes w = { 0 };
	char text[256];
	u8 kind = input_u8(in);
	size_t size = MIN(in->left, sizeof(text) - 1);
	memcpy(text, in->bytes, size);
	text[size] = 0;
	if (kind & 1)
		net_parse_forward(text, &w);
	else if (kind & 2)
		net_parse_network(text, &w);
	else
		net_parse_mac(text, &w);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	struct input in = { data, size };
	struct net_header header;
	struct tcp_place place;
	u8 kind = input_u8(&in);
	if (kind == 255) {
		options(&in);
		return 0;
	}
	for (unsigned i = 0; i < sizeof(header); i++)
		((u8 *)&header)[i] = input_u8(&in);
	u32 left = (u32)MIN(in.left, NET_FRAME_MAX);
	if (left < NET_FRAME_MIN)
		return 0;
	frame = malloc(left);
	memcpy(frame, in.bytes, left);
	if (tcp_find(frame, left, &place)) {
		CHECK(place.network < place.transport && place.transport < place.data && place.data <= place.end && place.end <= left);
		u8 *option = tcp_segment_size_option(frame, &place);
		CHECK(!option || (option > frame + place.transport && option + 2 <= frame + place.data));
		tcp_pseudo_sum(frame, &place);
	}
	if (kind & 1)
		offload_fragment(frame, left, emit, NULL);
	else
		offload_complete(&header, frame, left, emit, NULL);
	free(frame);
	return 0;
}
