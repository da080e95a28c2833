/* RFB: whether a client knows the password (RFC 6143, "VNC Authentication"). It encrypts what it is sent by DES, with the password as key; bits of the key
 * are counted from the other end than DES does. */
#include "host/linux/rfb.h"

#include <nettle/des.h>
#include <nettle/memops.h>
#include <string.h>

static u8 reversed(u8 byte)
{
	u8 result = 0;
	for (unsigned i = 0; i < 8; i++)
		result |= (u8)((byte >> i & 1) << (7 - i));
	return result;
}

bool rfb_password_good(const char *password, const u8 *challenge, const u8 *response)
{
	u8 key[DES_KEY_SIZE] = { 0 }, expected[RFB_CHALLENGE];
	struct des_ctx des;
	for (size_t i = 0; i < sizeof(key) && password[i]; i++)
		key[i] = reversed((u8)password[i]);
	(void)des_set_key(&des, key); /* weak keys are keys, too */
	des_encrypt(&des, sizeof(expected), expected, challenge);
	return memeql_sec(expected, response, sizeof(expected));
}
