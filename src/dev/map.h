/* Where things are in the virtual PC: the one place for addresses, ports and interrupt lines that the board wires, ACPI describes and
 * the loaders step around. */
#ifndef NADIR_DEV_MAP_H
#define NADIR_DEV_MAP_H

/* Physical memory. RAM fills [0, LOW_RAM_END) but for the legacy hole, and goes on at 4 GiB. */
#define MAP_LEGACY_HOLE 0xa0000ull
#define MAP_LEGACY_END 0x100000ull
#define MAP_PAM 0xc0000ull /* to MAP_LEGACY_END: RAM or ROM (mch.h) */
#define MAP_PAM_SIZE 0x40000ull
#define MAP_EBDA 0x9fc00ull
#define MAP_LOW_RAM_END 0xb0000000ull /* SeaBIOS moves the ECAM window here, and puts BARs from 0xc0000000 on */
#define MAP_PCI_MMIO 0xc0000000ull
#define MAP_PCI_MMIO_END 0xe0000000ull
#define MAP_ECAM 0xe0000000ull /* 256 buses of 1 MiB */
#define MAP_ECAM_SIZE 0x10000000ull
#define MAP_PCI_MMIO_HIGH 0xf0000000ull /* and more room for BARs, to the I/O APIC */
#define MAP_IOAPIC 0xfec00000ull
#define MAP_HPET 0xfed00000ull
#define MAP_LAPIC 0xfee00000ull
#define MAP_HIGH_RAM 0x100000000ull
#define MAP_ACPI 0xe0000ull /* ACPI tables, in RAM of the legacy area marked reserved, RSDP first */
#define MAP_ACPI_SIZE 0x20000ull

/* I/O ports. */
#define PORT_PIC_MASTER 0x20
#define PORT_PIC_SLAVE 0xa0
#define PORT_PIC_ELCR 0x4d0
#define PORT_PIT 0x40
#define PORT_I8042 0x60
#define PORT_SYSTEM_CONTROL 0x61
#define PORT_RTC 0x70
#define PORT_FAST_A20 0x92
#define PORT_DEBUG_EXIT 0xf4
#define PORT_DEBUG_CONSOLE 0xe9
#define PORT_FIRMWARE_CONSOLE 0x402 /* the same, where firmware for QEMU writes */
#define PORT_FW_CFG 0x510
#define PORT_FW_CFG_DMA 0x514
#define PORT_UART0 0x3f8
#define PORT_PM 0x600 /* PM1a event block; +4 PM1a control; +8 PM timer; +12 general-purpose events */
#define PORT_PCI_HOTPLUG 0xcc0
#define PORT_PCI_CONFIG 0xcf8
#define PORT_RESET 0xcf9

/* ISA interrupt lines; the PIT's is wired to I/O APIC input 2, all others to the input of their number. */
#define IRQ_PIT 0
#define IRQ_KEYBOARD 1
#define IRQ_UART0 4
#define IRQ_RTC 8
#define IRQ_SCI 9 /* level, active high */
#define IRQ_MOUSE 12
#define GSI_PIT 2
#define GPE_PCI_HOTPLUG 1 /* a general-purpose event */
#define GSI_PCI_INTA 16 /* PCI INTA-INTD: 16 to 19, level, active low; device d's INTx (0-3) is at 16 + (d + x) % 4 */
#define IOAPIC_PINS 24

/* Devices of PCI bus 0; the host bridge is 0. */
#define PCI_SLOT_RANDOM 1 /* and the display with its keyboard and tablet, as further functions */
#define PCI_FUNCTION_DISPLAY 1
#define PCI_FUNCTION_KEYBOARD 2
#define PCI_FUNCTION_TABLET 3
#define PCI_SLOT_BALLOON 2
#define PCI_SLOT_CONSOLE 3
#define PCI_SLOT_DISK 4 /* the first */
#define PCI_SLOT_NET 20 /* the first */
#define PCI_SLOT_SHARE 28 /* the first */
#define PCI_SLOTS_HOTPLUG 0x0ffffff0u /* those of disks and networks: a bit each */
#define PCI_SLOT_VSOCK 30
#define PCI_SLOT_LPC 31
#define PCI_FUNCTION_SATA 2 /* of the same */

/* Values that the ACPI tables tell the guest to write. */
#define PM_SLP_TYP_S5 0 /* SLP_TYP of PM1a control: soft off */
#define RESET_VALUE 6 /* to PORT_RESET */

#endif
