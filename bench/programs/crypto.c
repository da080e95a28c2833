/* Work for libcrypto: crypto gcm|sha256 COUNT encrypts or hashes COUNT MiB in pieces of 16 KiB and prints the tag or digest.
 * The functions are declared here, so that no development package is needed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PIECE 16384
#define GET_TAG 0x10

void *EVP_CIPHER_CTX_new(void);
const void *EVP_aes_256_gcm(void);
int EVP_EncryptInit_ex(void *context, const void *cipher, void *engine, const unsigned char *key, const unsigned char *iv);
int EVP_EncryptUpdate(void *context, unsigned char *out, int *out_length, const unsigned char *in, int length);
int EVP_EncryptFinal_ex(void *context, unsigned char *out, int *out_length);
int EVP_CIPHER_CTX_ctrl(void *context, int type, int argument, void *pointer);
void *EVP_MD_CTX_new(void);
const void *EVP_sha256(void);
int EVP_DigestInit_ex(void *context, const void *digest, void *engine);
int EVP_DigestUpdate(void *context, const void *data, size_t length);
int EVP_DigestFinal_ex(void *context, unsigned char *digest, unsigned *length);

static unsigned char piece[PIECE], out[PIECE + 16];

static int gcm(long pieces, unsigned char *result)
{
	static const unsigned char key[32] = "a key that is known to everyone";
	void *context = EVP_CIPHER_CTX_new();
	int length;

	EVP_EncryptInit_ex(context, EVP_aes_256_gcm(), NULL, key, key);
	while (pieces--)
		if (!EVP_EncryptUpdate(context, out, &length, piece, PIECE))
			return 0;
	EVP_EncryptFinal_ex(context, out, &length);
	return EVP_CIPHER_CTX_ctrl(context, GET_TAG, 16, result) ? 16 : 0;
}

static int sha256(long pieces, unsigned char *result)
{
	void *context = EVP_MD_CTX_new();
	unsigned length = 0;

	EVP_DigestInit_ex(context, EVP_sha256(), NULL);
	while (pieces--)
		EVP_DigestUpdate(context, piece, PIECE);
	EVP_DigestFinal_ex(context, result, &length);
	return (int)length;
}

int main(int argc, char **argv)
{
	unsigned char result[64];

	if (argc != 3)
		return 2;
	for (int i = 0; i < PIECE; i++)
		piece[i] = (unsigned char)(i * i + i / 7);
	long pieces = atol(argv[2]) * (1048576 / PIECE);
	int length = strcmp(argv[1], "gcm") ? sha256(pieces, result) : gcm(pieces, result);
	printf("%s ", argv[1]);
	for (int i = 0; i < length; i++)
		printf("%02x", result[i]);
	printf("\n");
	return !length;
}
