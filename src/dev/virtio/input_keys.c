/* Keys of a virtio keyboard (input.h). Linux numbers the keys of the first PCs as their keyboards did, in set 1; the others have an order of their own
 * (Linux' input-event-codes.h). */
#include "dev/virtio/input.h"

#define SAME_LAST 0x58 /* F12 */
#define EXTENDED 0xe000

static const struct {
	u16 code;
	u8 key;
} keys[] = {
	{ 0x54, 99 }, /* SysRq by itself */
	{ 0x70, 93 }, { 0x73, 89 }, { 0x77, 91 }, { 0x78, 90 }, { 0x79, 92 }, { 0x7b, 94 }, { 0x7d, 124 }, { 0x7e, 121 }, /* of Japan and Brazil */
	{ 0xe01c, 96 }, { 0xe01d, 97 }, { 0xe035, 98 }, { 0xe037, 99 }, { 0xe038, 100 }, { 0xe046, 119 }, /* Enter, Ctrl, /, Print, Alt, Pause */
	{ 0xe045, 69 }, /* Num Lock, as some say it */
	{ 0xe047, 102 }, { 0xe048, 103 }, { 0xe049, 104 }, { 0xe04b, 105 }, { 0xe04d, 106 }, { 0xe04f, 107 }, { 0xe050, 108 }, { 0xe051, 109 }, /* Home to */
	{ 0xe052, 110 }, { 0xe053, 111 }, /* Delete */
	{ 0xe05b, 125 }, { 0xe05c, 126 }, { 0xe05d, 127 }, /* system keys and menu */
	{ 0xe010, 165 }, { 0xe019, 163 }, { 0xe020, 113 }, { 0xe022, 164 }, { 0xe024, 166 }, { 0xe02e, 114 }, { 0xe030, 115 }, /* of music players */
	{ 0xe05e, 116 }, { 0xe05f, 142 }, { 0xe063, 143 }, /* power, sleep, wake up */
};

u16 input_key(u16 code)
{
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		if (keys[i].code == code)
			return keys[i].key;
	return code <= SAME_LAST && code != 0x55 ? code : 0;
}
