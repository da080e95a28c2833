/* Round trips over TCP, of one byte each way: ping-pong ADDRESS PORT COUNT, to a server that sends back what it gets. */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
	char byte = 'x';
	if (argc != 4 || inet_pton(AF_INET, argv[1], &address.sin_addr) != 1)
		return 2;
	address.sin_port = htons((unsigned short)atoi(argv[2]));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		perror("connect");
		return 1;
	}
	long count = atol(argv[3]);
	for (long i = 0; i < count; i++)
		if (write(fd, &byte, 1) != 1 || read(fd, &byte, 1) != 1)
			return 1;
	printf("%ld round trips\n", count);
	return 0;
}
