/*
 * A program with one of everything that must come back with it. A line on its standard input makes it look whether all
 * of it is there, by a descriptor for signals and an epoll; it says "whole N", or what is lost, and looks again.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

static int round_number;

static void fail(const char *what)
{
	printf("lost in round %d: %s (%s)\n", round_number, what, strerror(errno));
	fflush(stdout);
	_exit(1);
}

#define MUST(holds) do { if (!(holds)) fail(#holds); } while (0)

static volatile long ticks;

static void *tick(void *unused)
{
	for (;;) {
		ticks++;
		usleep(1000);
	}
	return unused;
}

/* What another process is told when it asks for a lock: it must not have it. */
static void locked(const char *path, pid_t owner)
{
	pid_t pid = fork();
	MUST(pid >= 0);
	if (pid == 0) {
		int fd = open(path, O_RDWR);
		struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 10 };
		if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) == 0)
			_exit(1);
		if (fcntl(fd, F_GETLK, &lock) || lock.l_type == F_UNLCK || lock.l_pid != owner)
			_exit(2);
		/* Bytes 20 to 30 are an open file's, which has no process. */
		lock = (struct flock){ .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 20, .l_len = 10 };
		if (fcntl(fd, F_GETLK, &lock) || lock.l_type == F_UNLCK || lock.l_pid != -1)
			_exit(3);
		_exit(0);
	}
	int status;
	MUST(waitpid(pid, &status, 0) == pid);
	if (status) {
		printf("lost in round %d: lock (%d)\n", round_number, WEXITSTATUS(status));
		fflush(stdout);
		_exit(1);
	}
}

static int client_of(const struct sockaddr_un *address)
{
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	MUST(connect(fd, (void *)address, sizeof *address) == 0);
	return fd;
}

int main(void)
{
	char text[64];
	struct stat status;

	int deleted = open("/deleted", O_CREAT | O_RDWR, 0600);
	MUST(write(deleted, "still here", 10) == 10 && unlink("/deleted") == 0);
	/* Deleted by one of its names. */
	int renamed = open("/one", O_CREAT | O_RDWR, 0600);
	MUST(write(renamed, "other", 5) == 5 && link("/one", "/other") == 0 && unlink("/one") == 0);

	int file = open("/locked", O_CREAT | O_RDWR, 0600), own = open("/locked", O_RDWR);
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 10 };
	MUST(flock(file, LOCK_EX) == 0 && fcntl(file, F_SETLK, &lock) == 0);
	lock.l_start = 20;
	MUST(fcntl(own, F_OFD_SETLK, &lock) == 0);

	int memory = memfd_create("memory", MFD_ALLOW_SEALING);
	MUST(write(memory, "sealed", 6) == 6 && fcntl(memory, F_ADD_SEALS, F_SEAL_SHRINK) == 0);
	int events = eventfd(7, EFD_NONBLOCK);
	int timer = timerfd_create(CLOCK_MONOTONIC, 0);
	struct itimerspec hour = { { 3600, 0 }, { 3600, 0 } }, left;
	MUST(timerfd_settime(timer, 0, &hour, NULL) == 0);
	int watched = open("/watched", O_CREAT | O_RDWR, 0600), watch = inotify_init1(IN_NONBLOCK);
	MUST(inotify_add_watch(watch, "/watched", IN_MODIFY) >= 0);

	int pair[2], datagrams[2], pipes[2];
	MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0 && write(pair[0], "queued", 6) == 6);
	MUST(socketpair(AF_UNIX, SOCK_DGRAM, 0, datagrams) == 0);
	MUST(write(datagrams[0], "first", 5) == 5 && write(datagrams[0], "second", 6) == 6);
	MUST(pipe(pipes) == 0 && write(pipes[1], "piped", 5) == 5);
	MUST(mkfifo("/fifo", 0600) == 0);
	int fifo = open("/fifo", O_RDWR);
	MUST(write(fifo, "named", 5) == 5);
	struct sockaddr_un address = { AF_UNIX, "/listening" };
	int listener = socket(AF_UNIX, SOCK_STREAM, 0);
	MUST(bind(listener, (void *)&address, sizeof address) == 0 && listen(listener, 5) == 0);
	int client = client_of(&address);

	int segment = shmget(IPC_PRIVATE, 4096, IPC_CREAT | 0600);
	char *shared = shmat(segment, NULL, 0);
	strcpy(shared, "system v");
	int semaphores = semget(IPC_PRIVATE, 1, IPC_CREAT | 0600);
	MUST(semctl(semaphores, 0, SETVAL, 5) == 0);
	int queue = msgget(IPC_PRIVATE, IPC_CREAT | 0600);
	struct { long kind; char text[8]; } message = { 3, "message" };
	MUST(msgsnd(queue, &message, 8, 0) == 0);
	int posix = open("/dev/shm/posix", O_CREAT | O_RDWR, 0600);
	MUST(ftruncate(posix, 4096) == 0);
	char *mapped = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, posix, 0);
	strcpy(mapped, "posix");
	volatile long *counter = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t child = fork();
	if (child == 0)
		for (;;) {
			++*counter;
			usleep(1000);
		}

	int master = posix_openpt(O_RDWR | O_NOCTTY);
	MUST(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
	int slave = open(ptsname(master), O_RDWR | O_NOCTTY);
	struct winsize size = { 40, 120, 0, 0 }, seen;
	struct termios mode;
	MUST(ioctl(master, TIOCSWINSZ, &size) == 0 && tcgetattr(slave, &mode) == 0);
	cfmakeraw(&mode);
	MUST(tcsetattr(slave, TCSANOW, &mode) == 0);

	struct sockaddr_in port = { AF_INET, htons(5000), { htonl(INADDR_LOOPBACK) } }, bound;
	int udp = socket(AF_INET, SOCK_DGRAM, 0);
	MUST(bind(udp, (void *)&port, sizeof port) == 0);

	sigset_t signals;
	sigemptyset(&signals);
	sigaddset(&signals, SIGUSR1);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	int signal_fd = signalfd(-1, &signals, 0);
	int epoll = epoll_create1(0);
	struct epoll_event event = { EPOLLIN, { .u64 = 42 } };
	MUST(epoll_ctl(epoll, EPOLL_CTL_ADD, signal_fd, &event) == 0);
	pthread_t thread;
	MUST(pthread_create(&thread, NULL, tick, NULL) == 0);
	struct timespec begun, now;
	clock_gettime(CLOCK_MONOTONIC, &begun);

	for (;;) {
		char line[16];
		if (fgets(line, sizeof line, stdin) == NULL)
			return 0;
		round_number++;

		kill(getpid(), SIGUSR1);
		struct signalfd_siginfo info;
		MUST(epoll_wait(epoll, &event, 1, 5000) == 1 && event.data.u64 == 42);
		MUST(read(signal_fd, &info, sizeof info) == sizeof info && info.ssi_signo == SIGUSR1);

		MUST(pread(deleted, text, 10, 0) == 10 && memcmp(text, "still here", 10) == 0);
		MUST(fstat(deleted, &status) == 0 && status.st_nlink == 0);
		MUST(pread(renamed, text, 5, 0) == 5 && memcmp(text, "other", 5) == 0);
		MUST(access("/deleted", F_OK) != 0 && access("/one", F_OK) != 0);
		locked("/locked", getpid());
		MUST(pread(memory, text, 6, 0) == 6 && memcmp(text, "sealed", 6) == 0);
		MUST(fcntl(memory, F_GET_SEALS) == F_SEAL_SHRINK);

		uint64_t value = 0;
		MUST(read(events, &value, 8) == 8 && value == 7 && write(events, &value, 8) == 8);
		MUST(timerfd_gettime(timer, &left) == 0 && left.it_interval.tv_sec == 3600);
		MUST(left.it_value.tv_sec > 3000 && left.it_value.tv_sec < 3600);
		MUST(read(watch, text, sizeof text) < 0 && errno == EAGAIN);
		MUST(pwrite(watched, "x", 1, 0) == 1 && read(watch, text, sizeof text) > 0);

		MUST(recv(pair[1], text, sizeof text, MSG_PEEK) == 6 && memcmp(text, "queued", 6) == 0);
		MUST(recv(datagrams[1], text, sizeof text, 0) == 5 && recv(datagrams[1], text, sizeof text, 0) == 6);
		MUST(write(datagrams[0], "first", 5) == 5 && write(datagrams[0], "second", 6) == 6);
		MUST(read(pipes[0], text, sizeof text) == 5 && write(pipes[1], "piped", 5) == 5);
		MUST(read(fifo, text, sizeof text) == 5 && write(fifo, "named", 5) == 5);
		int accepted = accept(listener, NULL, NULL);
		MUST(write(client, "hello", 5) == 5);
		MUST(accepted >= 0 && read(accepted, text, sizeof text) == 5 && memcmp(text, "hello", 5) == 0);
		MUST(write(accepted, "there", 5) == 5 && read(client, text, sizeof text) == 5);
		close(accepted);
		close(client);
		client = client_of(&address);

		MUST(strcmp(shared, "system v") == 0);
		struct shmid_ds segments;
		MUST(shmctl(segment, IPC_STAT, &segments) == 0 && segments.shm_nattch >= 1);
		MUST(semctl(semaphores, 0, GETVAL) == 5);
		MUST(msgrcv(queue, &message, 8, 3, IPC_NOWAIT) == 8 && strcmp(message.text, "message") == 0);
		MUST(msgsnd(queue, &message, 8, 0) == 0);
		MUST(strcmp(mapped, "posix") == 0 && pread(posix, text, 6, 0) == 6 && strcmp(text, "posix") == 0);
		MUST(pwrite(posix, "p", 1, 4000) == 1 && mapped[4000] == 'p');
		long before = *counter, ticked = ticks;
		usleep(100000);
		MUST(kill(child, 0) == 0 && *counter > before && ticks > ticked);

		MUST(ioctl(slave, TIOCGWINSZ, &seen) == 0 && seen.ws_row == 40 && seen.ws_col == 120);
		MUST(tcgetattr(slave, &mode) == 0 && !(mode.c_lflag & ICANON));
		MUST(write(master, "typed", 5) == 5 && read(slave, text, sizeof text) == 5);
		socklen_t length = sizeof bound;
		MUST(getsockname(udp, (void *)&bound, &length) == 0 && bound.sin_port == htons(5000));
		MUST(sendto(udp, "self", 4, 0, (void *)&port, sizeof port) == 4 && recv(udp, text, sizeof text, 0) == 4);
		clock_gettime(CLOCK_MONOTONIC, &now);
		MUST(now.tv_sec >= begun.tv_sec && now.tv_sec < begun.tv_sec + 300);

		printf("whole %d\n", round_number);
		fflush(stdout);
	}
}
