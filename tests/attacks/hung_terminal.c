/* A program whose terminal does not answer: hung_terminal FOLDER early|late|write COMMAND...
 *
 * It runs COMMAND in the foreground of a terminal that it has made, which is standard error there. It writes to that
 * terminal from memory whose content is on a FUSE file system of its own (mounted at FOLDER in a user namespace,
 * which any user may), and never delivers that content: so the write never ends, and holds the terminal's line
 * discipline. Threads that would set another line discipline wait for it, five seconds each, and hold the terminal
 * while they do: whoever opens, reads, changes or closes it waits for all of them.
 *
 * That begins before the command does (early), or when something is shown on the terminal (late); with `write`
 * there are no such threads, and only those who write to the terminal are told to come again. Prints a line when
 * the terminal hangs, or "skip" and why where that cannot be done here. It lasts until this process ends.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <termios.h>

#include "fuse_folder.h"

#define FOLDER 1 /* FUSE_ROOT_ID */
#define FILE 2
#define NAME "memory"
#define SIZE 4096
#define THREADS 64

static int screen, keyboard, hung[2];

/* Serves the file system until it is over. That somebody waits for the file's content is the news.
 *
 * In a process of its own: with that ends what waits here, and else would not end when it is killed. */
static void serve(int fuse)
{
	static char request[1 << 20], answer[1024];
	const struct fuse_in_header *asked = (void *)request;
	struct fuse_out_header *out = (void *)answer;
	void *content = answer + sizeof *out;
	for (;;) {
		ssize_t length = read(fuse, request, sizeof request);
		if (length < 0 && errno == EINTR)
			continue;
		if (length < 0)
			exit(0);
		memset(answer, 0, sizeof answer);
		out->unique = asked->unique;
		struct fuse_attr *attr = &((struct fuse_attr_out *)content)->attr;
		length = sizeof(struct fuse_attr_out);
		switch (asked->opcode) {
		case FUSE_INIT:
			describe_protocol(content);
			length = sizeof(struct fuse_init_out);
			break;
		case FUSE_LOOKUP:
			((struct fuse_entry_out *)content)->nodeid = FILE;
			attr = &((struct fuse_entry_out *)content)->attr;
			length = sizeof(struct fuse_entry_out);
			/* fall through */
		case FUSE_GETATTR:
			attr->ino = asked->opcode == FUSE_LOOKUP ? FILE : asked->nodeid;
			attr->mode = attr->ino == FOLDER ? S_IFDIR | 0755 : S_IFREG | 0644;
			attr->nlink = 1;
			attr->size = attr->ino == FOLDER ? 0 : SIZE;
			attr->uid = getuid();
			attr->gid = getgid();
			break;
		case FUSE_OPEN:
			length = sizeof(struct fuse_open_out);
			break;
		case FUSE_READ:
			if (write(hung[1], "", 1) < 0)
				exit(1);
			continue;
		case FUSE_FORGET:
		case FUSE_INTERRUPT:
			continue;
		default:
			out->error = -ENOSYS;
			length = 0;
		}
		out->len = sizeof *out + length;
		if (write(fuse, answer, out->len) < 0 && errno != ENOENT)
			exit(1);
	}
}

static void *write_for_ever(void *memory)
{
	ssize_t count = write(keyboard, memory, 1);
	fprintf(stderr, "the write ended: %zd\n", count);
	return NULL;
}

static void *set_discipline(void *_)
{
	int usual = 0; /* N_TTY */
	for (;;)
		ioctl(keyboard, TIOCSETD, &usual);
	return _;
}

static void hang(void *memory, int threads)
{
	pthread_t thread;
	char byte;
	if (pthread_create(&thread, NULL, write_for_ever, memory) != 0 || read(hung[0], &byte, 1) != 1)
		exit(1);
	while (threads-- > 0)
		if (pthread_create(&thread, NULL, set_discipline, NULL) != 0)
			exit(1);
	puts("hung");
}

static void run(char **command, int ready, int begin)
{
	char byte;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	setsid();
	if (ioctl(keyboard, TIOCSCTTY, 0) != 0 || dup2(keyboard, 2) != 2 || write(ready, "", 1) != 1 || read(begin, &byte, 1) != 1)
		_exit(1);
	execvp(command[0], command);
	_exit(1);
}

int main(int count, char **words)
{
	char shown[4096], path[4096];
	int ready[2], begin[2];
	uid_t user = getuid();
	gid_t group = getgid();
	if (count < 4)
		return 1;
	int late = strcmp(words[2], "late") == 0, threads = strcmp(words[2], "write") == 0 ? 0 : THREADS;
	setvbuf(stdout, NULL, _IOLBF, 0);
	screen = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (screen < 0 || grantpt(screen) != 0 || unlockpt(screen) != 0)
		return 1;
	keyboard = open(ptsname(screen), O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (keyboard < 0 || pipe2(ready, O_CLOEXEC) != 0 || pipe2(begin, O_CLOEXEC) != 0 ||
	     pipe2(hung, O_CLOEXEC) != 0)
		return 1;
	/* The command is in the namespaces of everybody else. */
	if (fork() == 0)
		run(words + 3, ready[1], begin[0]);
	if (read(ready[0], shown, 1) != 1)
		return 1;
	enter_own_namespaces();
	int fuse = mount_fuse(words[1], user, group);
	if (fork() == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		serve(fuse);
	}
	close(fuse);
	snprintf(path, sizeof path, "%s/%s", words[1], NAME);
	int file = open(path, O_RDONLY);
	void *memory = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, file, 0);
	if (file < 0 || memory == MAP_FAILED)
		skip("no memory on a FUSE file system");
	if (!late)
		hang(memory, threads);
	if (write(begin[1], "", 1) != 1)
		return 1;
	if (late) {
		if (read(screen, shown, sizeof shown) <= 0)
			return 1;
		hang(memory, threads);
	}
	for (;;)
		pause();
}
