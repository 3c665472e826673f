/* A client that never finishes its request, and so keeps its connection in use: holder SOCKET.
 * Prints a line when it is connected.
 */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int client = socket(AF_UNIX, SOCK_STREAM, 0);
	if (argc != 2)
		return 1;
	strncpy(address.sun_path, argv[1], sizeof address.sun_path - 1);
	if (connect(client, (void *)&address, sizeof address) != 0)
		return 1;
	send(client, "\0\0", 2, MSG_NOSIGNAL); /* unless it was closed for want of room */
	puts("connected");
	fflush(stdout);
	pause();
	return 0;
}
