/* A program whose file system does not answer: hung_program FOLDER SOCKET.
 *
 * It mounts a FUSE file system at FOLDER, in a user namespace of its own, which any user may, and runs a copy of
 * itself there, which connects to SOCKET and waits. Who asks about the copy's file waits for ever.
 * Prints a line when it is connected, or "skip" and why where that cannot be done here.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "fuse_folder.h"

#define FOLDER 1 /* FUSE_ROOT_ID */
#define PROGRAM 2
#define NAME "hung"

static char *program;
static size_t size;

static void describe(struct fuse_attr *attr, uint64_t node)
{
	memset(attr, 0, sizeof *attr);
	attr->ino = node;
	attr->mode = node == FOLDER ? S_IFDIR | 0755 : S_IFREG | 0755;
	attr->nlink = 1;
	attr->size = node == FOLDER ? 0 : size;
	attr->blksize = 4096;
	attr->uid = getuid();
	attr->gid = getgid();
}

static void connect_and_wait(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int client = socket(AF_UNIX, SOCK_STREAM, 0);
	strncpy(address.sun_path, path, sizeof address.sun_path - 1);
	if (connect(client, (void *)&address, sizeof address) != 0)
		_exit(1);
	puts("connected");
	fflush(stdout);
	pause();
	_exit(0);
}

/* Serves the file system until it is over; every valid answer is for no time. */
static void serve(int fuse, pid_t copy)
{
	static char request[1 << 20], answer[1 << 18];
	const struct fuse_in_header *asked = (void *)request;
	const void *in = request + sizeof *asked;
	struct fuse_out_header *out = (void *)answer;
	void *content = answer + sizeof *out;
	for (;;) {
		ssize_t length = read(fuse, request, sizeof request);
		if (length < 0 && errno == EINTR)
			continue;
		if (length < 0)
			return;
		memset(answer, 0, 512);
		out->unique = asked->unique;
		length = 0;
		switch (asked->opcode) {
		case FUSE_INIT:
			describe_protocol(content);
			length = sizeof(struct fuse_init_out);
			break;
		case FUSE_LOOKUP: {
			struct fuse_entry_out *entry = content;
			if (strcmp(in, NAME) != 0) {
				out->error = -ENOENT;
				break;
			}
			entry->nodeid = PROGRAM;
			describe(&entry->attr, PROGRAM);
			length = sizeof *entry;
			break;
		}
		case FUSE_GETATTR: {
			struct fuse_attr_out *attr = content;
			if (asked->nodeid == PROGRAM && asked->pid != (uint32_t)copy)
				continue; /* whoever asks waits */
			describe(&attr->attr, asked->nodeid);
			length = sizeof *attr;
			break;
		}
		case FUSE_OPEN:
			((struct fuse_open_out *)content)->open_flags = FOPEN_KEEP_CACHE;
			length = sizeof(struct fuse_open_out);
			break;
		case FUSE_READ: {
			const struct fuse_read_in *wanted = in;
			length = wanted->offset < size ? size - wanted->offset : 0;
			if (length > wanted->size)
				length = wanted->size;
			memcpy(content, program + wanted->offset, length);
			break;
		}
		case FUSE_RELEASE:
		case FUSE_FLUSH:
			break;
		case FUSE_FORGET:
		case FUSE_BATCH_FORGET:
		case FUSE_INTERRUPT:
			continue;
		default:
			out->error = -ENOSYS;
		}
		out->len = sizeof *out + length;
		if (write(fuse, answer, out->len) < 0 && errno != ENOENT)
			return;
	}
}

int main(int count, char **words)
{
	char path[4096];
	struct stat status;
	uid_t user = getuid();
	gid_t group = getgid();
	if (count == 2 && strcmp(words[0], NAME) == 0)
		connect_and_wait(words[1]);
	setvbuf(stdout, NULL, _IOLBF, 0);
	int self = open("/proc/self/exe", O_RDONLY);
	if (count != 3 || self < 0 || fstat(self, &status) != 0)
		return 1;
	size = status.st_size;
	program = malloc(size);
	if (read(self, program, size) != (ssize_t)size)
		return 1;
	close(self);
	enter_own_namespaces();
	int fuse = mount_fuse(words[1], user, group);
	snprintf(path, sizeof path, "%s/%s", words[1], NAME);
	pid_t copy = fork();
	if (copy == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		execl(path, NAME, words[2], NULL);
		_exit(1);
	}
	serve(fuse, copy);
	return 0;
}
