/* The commands for running VMs (commands.c, command_stats.c, command_console.c): clients of their control sockets. Each returns an exit status. */
#ifndef NADIR_HOST_LINUX_COMMANDS_H
#define NADIR_HOST_LINUX_COMMANDS_H

int command_list(int argc, char **argv);
int command_stop(int argc, char **argv);
int command_pause(int argc, char **argv);
int command_resume(int argc, char **argv);
int command_reset(int argc, char **argv);
int command_balloon(int argc, char **argv);
int command_stats(int argc, char **argv);
int command_console(int argc, char **argv);

/* nadir snapshot (command_snapshot.c). */
int command_snapshot(int argc, char **argv);

/* nadir screenshot (command_screenshot.c). */
int command_screenshot(int argc, char **argv);

/* nadir devices, add-disk, add-net and remove-device (command_device.c). */
int command_devices(int argc, char **argv);
int command_add_disk(int argc, char **argv);
int command_add_net(int argc, char **argv);
int command_remove_device(int argc, char **argv);

/* nadir create-disk (command_disk.c). */
int command_create_disk(int argc, char **argv);

#endif
