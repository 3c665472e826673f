/* Mounting a FUSE file system over a folder, as any user may. Ends the program with "skip" and why where that cannot be
 * done here. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

static inline void skip(const char *what)
{
	printf("skip: %s: %s\n", what, strerror(errno));
	exit(0);
}

static inline void write_to(const char *path, const char *text)
{
	int file = open(path, O_WRONLY);
	if (file < 0 || write(file, text, strlen(text)) < 0)
		skip(path);
	close(file);
}

/* Enters a user namespace of its own, as the same user, and a mount namespace. */
static inline void enter_own_namespaces(void)
{
	char map[64];
	uid_t user = getuid();
	gid_t group = getgid();
	if (unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0)
		skip("no user namespace");
	write_to("/proc/self/setgroups", "deny");
	snprintf(map, sizeof map, "%u %u 1", user, user);
	write_to("/proc/self/uid_map", map);
	snprintf(map, sizeof map, "%u %u 1", group, group);
	write_to("/proc/self/gid_map", map);
}

/* Mounts it over `folder`; returns the descriptor on which its requests come. */
static inline int mount_fuse(const char *folder, uid_t user, gid_t group)
{
	char options[128];
	int fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (fuse < 0)
		skip("no /dev/fuse");
	snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=%u,group_id=%u", fuse, user, group);
	if (mount("replug", folder, "fuse", MS_NOSUID | MS_NODEV, options) != 0)
		skip("no FUSE file system");
	return fuse;
}

static inline void describe_protocol(struct fuse_init_out *init)
{
	init->major = FUSE_KERNEL_VERSION;
	init->minor = 31;
	init->max_write = 65536;
}
