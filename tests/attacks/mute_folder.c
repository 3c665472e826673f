/* A folder that stops answering: mute_folder FOLDER UID OPCODE [PID].
 *
 * Mounts a FUSE file system over FOLDER, in the namespaces of process PID if that is given, as fusermount3 does for
 * any user. It is a folder of user UID with one program in it, "program", and files can be made there, but a request
 * with the number OPCODE (linux/fuse.h) is never answered. Prints "mounted", and "asked" when there is such a request; or "skip" and why
 * where that cannot be done here. It is over when standard input ends.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <stdint.h>
#include <sys/stat.h>

#include "fuse_folder.h"

#define MOST 64

/* Node 1 is the folder, file n is node n + 2. */
static struct { const char *name; uint32_t mode; } files[MOST] = {{"program", S_IFREG | 0755}};
static uid_t user;

static void enter(const char *pid)
{
	char path[64];
	const char *kinds[] = {"user", "mnt"};
	int opened[2];
	for (int kind = 0; kind < 2; kind++) {
		snprintf(path, sizeof path, "/proc/%s/ns/%s", pid, kinds[kind]);
		opened[kind] = open(path, O_RDONLY | O_CLOEXEC);
		if (opened[kind] < 0)
			skip(path);
	}
	for (int kind = 0; kind < 2; kind++)
		if (setns(opened[kind], 0) != 0)
			skip("setns");
}

static int find(const char *name)
{
	for (int file = 0; file < MOST; file++)
		if (files[file].mode && strcmp(files[file].name, name) == 0)
			return file;
	return -1;
}

static int make(const char *name, uint32_t mode)
{
	for (int file = 0; file < MOST; file++)
		if (!files[file].mode) {
			files[file].name = strdup(name);
			files[file].mode = mode;
			return file;
		}
	abort();
}

static void describe(struct fuse_attr *attr, uint64_t node)
{
	attr->ino = node;
	attr->mode = node == FUSE_ROOT_ID ? S_IFDIR | 0700 : files[node - 2].mode;
	attr->nlink = 1;
	attr->blksize = 4096;
	attr->uid = attr->gid = user;
}

static ssize_t enter_file(struct fuse_entry_out *entry, int file)
{
	entry->nodeid = file + 2;
	describe(&entry->attr, file + 2);
	return sizeof *entry;
}

/* The answer to a request in `content`; its length, or a negative errno. */
static ssize_t answer_to(const struct fuse_in_header *asked, const void *in, void *content)
{
	switch (asked->opcode) {
	case FUSE_INIT:
		describe_protocol(content);
		return sizeof(struct fuse_init_out);
	case FUSE_GETATTR:
	case FUSE_SETATTR:
		describe(&((struct fuse_attr_out *)content)->attr, asked->nodeid);
		return sizeof(struct fuse_attr_out);
	case FUSE_LOOKUP: {
		int file = find(in);
		return file < 0 ? -ENOENT : enter_file(content, file);
	}
	case FUSE_MKNOD: {
		const struct fuse_mknod_in *wanted = in;
		return enter_file(content, make((const char *)(wanted + 1), wanted->mode));
	}
	case FUSE_CREATE: {
		const struct fuse_create_in *wanted = in;
		return enter_file(content, make((const char *)(wanted + 1), S_IFREG | wanted->mode)) +
		       sizeof(struct fuse_open_out);
	}
	case FUSE_OPEN:
	case FUSE_OPENDIR:
		return sizeof(struct fuse_open_out);
	case FUSE_WRITE:
		((struct fuse_write_out *)content)->size = ((const struct fuse_write_in *)in)->size;
		return sizeof(struct fuse_write_out);
	case FUSE_RENAME: {
		const char *from = (const char *)((const struct fuse_rename_in *)in + 1);
		int file = find(from);
		if (file < 0)
			return -ENOENT;
		files[file].name = strdup(from + strlen(from) + 1);
		return 0;
	}
	case FUSE_UNLINK: {
		int file = find(in);
		if (file < 0)
			return -ENOENT;
		files[file].mode = 0;
		return 0;
	}
	case FUSE_READDIR:
	case FUSE_RELEASE:
	case FUSE_RELEASEDIR:
	case FUSE_FLUSH:
		return 0;
	default:
		return -ENOSYS;
	}
}

int main(int count, char **words)
{
	static char request[1 << 20], answer[4096];
	const struct fuse_in_header *asked = (void *)request;
	struct fuse_out_header *out = (void *)answer;
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (count < 4)
		return 1;
	user = atoi(words[2]);
	uint32_t mute = atoi(words[3]);
	if (count > 4)
		enter(words[4]);
	int fuse = mount_fuse(words[1], user, user);
	puts("mounted");
	struct pollfd watched[] = {{.fd = fuse, .events = POLLIN}, {.fd = 0, .events = POLLIN}};
	while (poll(watched, 2, -1) >= 0 && !watched[1].revents) {
		ssize_t length = read(fuse, request, sizeof request);
		if (length < 0 && (errno == EINTR || errno == ENOENT))
			continue;
		if (length < 0)
			break;
		if (asked->opcode == mute) {
			puts("asked");
			continue;
		}
		if (asked->opcode == FUSE_FORGET || asked->opcode == FUSE_BATCH_FORGET || asked->opcode == FUSE_INTERRUPT)
			continue;
		memset(answer, 0, sizeof answer);
		length = answer_to(asked, asked + 1, out + 1);
		out->unique = asked->unique;
		out->error = length < 0 ? length : 0;
		out->len = sizeof *out + (length > 0 ? length : 0);
		if (write(fuse, answer, out->len) < 0 && errno != ENOENT)
			break;
	}
	umount2(words[1], MNT_DETACH);
	return 0;
}
