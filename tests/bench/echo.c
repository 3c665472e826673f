/* The most trivial agent: answers whatever arrives on its socket with the same frame.
 *
 *   echo SOCKET <reply
 *
 * One process with epoll; a request is taken to arrive in one piece. It shows what the load (load.c), the
 * sockets and the machine can do at most when an agent costs nothing.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static char reply[256 * 1024], buffer[256 * 1024];

int main(int argc, char **argv) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (argc != 2 || strlen(argv[1]) >= sizeof address.sun_path)
        return 2;
    strcpy(address.sun_path, argv[1]);
    size_t size = fread(reply, 1, sizeof reply, stdin);
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), queue = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event events[64], interest = {.events = EPOLLIN, .data.fd = listener};
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 128) < 0 ||
        epoll_ctl(queue, EPOLL_CTL_ADD, listener, &interest) < 0) {
        perror("echo");
        return 2;
    }
    puts("listening");
    fflush(stdout);
    for (;;) {
        int ready = epoll_wait(queue, events, 64, -1);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                interest.data.fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
                epoll_ctl(queue, EPOLL_CTL_ADD, interest.data.fd, &interest);
            } else if (recv(fd, buffer, sizeof buffer, 0) <= 0 || send(fd, reply, size, MSG_NOSIGNAL) < 0) {
                close(fd);
            }
        }
    }
}
