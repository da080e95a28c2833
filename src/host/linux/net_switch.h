/* `nadir switch`: a switch for the virtual machines of one host (net_switch.c). */
#ifndef NADIR_HOST_LINUX_NET_SWITCH_H
#define NADIR_HOST_LINUX_NET_SWITCH_H

/* The arguments after `switch` (argv[0] is that word). Runs until it is told to end; the process's exit status. */
int switch_main(int argc, char **argv);

#endif
