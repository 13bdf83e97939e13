/*
 * Programs that CRIU does not freeze, one per name: does what its first argument says, says "ready", and waits. Where
 * the kernel cannot do it, it says "unsupported"; any other failure is one of the test.
 *
 * Numbers stand where musl has no header for them.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static void say(const char *text)
{
	printf("%s\n", text);
	fflush(stdout);
}

static int must(long result, const char *what)
{
	if (result >= 0)
		return (int)result;
	int lacks = errno == ENOSYS || errno == EAFNOSUPPORT || errno == EPROTONOSUPPORT || errno == ENODEV;
	printf("%s %s: %s\n", lacks ? "unsupported" : "failed", what, strerror(errno));
	fflush(stdout);
	_exit(1);
}

static void forever(void)
{
	for (;;)
		pause();
}

/* A child whose own child is in other namespaces. */
static void nest(int flags)
{
	int pipes[2];
	char byte;
	must(pipe(pipes), "pipe");
	if (must(fork(), "fork") == 0) {
		must(unshare(flags), "unshare");
		if (must(fork(), "fork") == 0)
			must(write(pipes[1], "x", 1), "write");
		forever();
	}
	must(read(pipes[0], &byte, 1), "read");
}

static int waits(void *unused)
{
	forever();
	return 0;
}

static void mount_at(const char *source, const char *kind, const char *options)
{
	mkdir("/mnt", 0700);
	must(mount(source, "/mnt", kind, 0, options), kind);
}

static void connect_to(const char *path, int kind)
{
	struct sockaddr_un to = { AF_UNIX, "" };
	strncpy(to.sun_path, path, sizeof to.sun_path - 1);
	must(connect(must(socket(AF_UNIX, kind, 0), "socket"), (void *)&to, sizeof to), path);
}

static void map(int flags, int fd)
{
	must(mmap(NULL, 2 << 20, PROT_READ, flags, fd, 0) == MAP_FAILED ? -1 : 0, "mmap");
}

int main(int count, char **words)
{
	const char *name = count > 1 ? words[1] : "", *path = count > 2 ? words[2] : "";
#define IS(word) (strcmp(name, word) == 0)
	if (IS("io_uring")) {
		char parameters[120] = { 0 };
		must(syscall(425, 4, parameters), name);
	} else if (IS("perf")) {
		/* A software event that counts nothing. */
		int attributes[32] = { 1, 128 };
		must(syscall(SYS_perf_event_open, attributes, 0, -1, -1, 0), name);
	} else if (IS("userfaultfd")) {
		must(syscall(SYS_userfaultfd, 1), name);
	} else if (IS("landlock")) {
		long long rights = 1;
		must(syscall(444, &rights, 8, 0), name);
	} else if (IS("secret")) {
		must(syscall(447, 0), name);
	} else if (IS("fsopen")) {
		must(syscall(430, "tmpfs", 0), name);
	} else if (IS("bpf")) {
		struct { unsigned kind, key, value, entries, flags; char rest[100]; } attributes = { 1, 4, 4, 4, 0 };
		must(syscall(SYS_bpf, 0, &attributes, sizeof attributes), name);
	} else if (IS("notify")) {
		struct { unsigned short code; char yes, no; unsigned value; } allow = { 6, 0, 0, 0x7fff0000 };
		struct { unsigned short length; void *filter; } program = { 1, &allow };
		prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
		must(syscall(SYS_seccomp, 1, 8, &program), name);
	} else if (IS("open")) {
		must(open(path, O_RDWR), path);
	} else if (IS("tun")) {
		char request[40] = "tun7";
		request[16] = 1;
		must(ioctl(must(open("/dev/net/tun", O_RDWR), name), 0x400454ca, request), name);
	} else if (IS("watch")) {
		must(inotify_add_watch(must(inotify_init1(0), name), path, IN_MODIFY), path);
	} else if (IS("queue")) {
		must(mq_open("/queue", O_CREAT | O_RDWR, 0600, NULL), name);
	} else if (IS("closed-queue")) {
		mq_close(must(mq_open("/queue", O_CREAT | O_RDWR, 0600, NULL), name));
	} else if (IS("huge")) {
		map(MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_NORESERVE, -1);
	} else if (IS("unread")) {
		struct { unsigned short family, pad; unsigned port, groups; } own = { AF_NETLINK };
		struct { unsigned length; unsigned short kind, flags; unsigned sequence, port; char body[16]; } ask = { 32, 18, 0x301, 1 };
		int fd = must(socket(AF_NETLINK, SOCK_RAW, 0), name);
		must(bind(fd, (void *)&own, sizeof own), name);
		must(send(fd, &ask, sizeof ask, 0), name);
	} else if (IS("vsock")) {
		must(socket(40, SOCK_STREAM, 0), name);
	} else if (IS("xdp")) {
		must(socket(44, SOCK_RAW, 0), name);
	} else if (IS("mptcp")) {
		must(socket(AF_INET, SOCK_STREAM, 262), name);
	} else if (IS("sctp")) {
		must(socket(AF_INET, SOCK_STREAM, 132), name);
	} else if (IS("stream")) {
		connect_to(path, SOCK_STREAM);
	} else if (IS("datagram")) {
		connect_to(path, SOCK_DGRAM);
	} else if (IS("pidns")) {
		nest(CLONE_NEWPID);
	} else if (IS("own-userns")) {
		must(unshare(CLONE_NEWUSER), name);
	} else if (IS("userns")) {
		nest(CLONE_NEWUSER);
	} else if (IS("own-mntns")) {
		must(unshare(CLONE_NEWNS), name);
	} else if (IS("mntns")) {
		nest(CLONE_NEWNS);
	} else if (IS("timens")) {
		nest(0x80);
	} else if (IS("traced")) {
		int pid = must(fork(), "fork");
		if (pid == 0) {
			must(ptrace(PTRACE_TRACEME, 0, 0, 0), name);
			raise(SIGSTOP);
			forever();
		}
		waitpid(pid, NULL, 0);
		must(ptrace(PTRACE_CONT, pid, 0, 0), name);
	} else if (IS("vm")) {
		static char stack[65536];
		must(clone(waits, stack + sizeof stack, CLONE_VM | SIGCHLD, NULL), name);
	} else if (IS("user")) {
		must(setgid(1000), name);
		must(setuid(1000), name);
	} else if (IS("ramfs")) {
		mount_at("none", "ramfs", NULL);
	} else if (IS("overlay")) {
		mkdir("/dev/shm/upper", 0700);
		mkdir("/dev/shm/work", 0700);
		mount_at("none", "overlay", "lowerdir=/etc,upperdir=/dev/shm/upper,workdir=/dev/shm/work");
	} else if (IS("hidden")) {
		mkdir("/hidden", 0700);
		must(open("/hidden/file", O_CREAT | O_RDWR, 0600), name);
		must(mount("none", "/hidden", "tmpfs", 0, NULL), name);
	} else if (IS("unmounted")) {
		mount_at("none", "tmpfs", NULL);
		must(open("/mnt/file", O_CREAT | O_RDWR, 0600), name);
		must(umount2("/mnt", MNT_DETACH), name);
	} else if (IS("unlinked")) {
		must(open(path, O_RDONLY), path);
	} else if (IS("ghost")) {
		/* Deleted, with more in it than is saved. */
		int fd = must(open("/ghost", O_CREAT | O_RDWR, 0600), name);
		must(fallocate(fd, 0, 0, 1200LL << 20), name);
		must(unlink("/ghost"), name);
	} else if (!IS("plain")) {
		say("failed: no such animal");
		return 2;
	}
	say("ready");
	forever();
}
