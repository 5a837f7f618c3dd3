/* SPDX-License-Identifier: Apache-2.0 */
/*
 * delay: a long wire between two network namespaces of its own, for kernels without netem.
 * Knows TUN devices and packets. Must not know what the packets carry.
 *
 *   delay      prints "CLIENT SERVER": files of the two namespaces, to be entered by nsenter --net=
 *              or setns(2), with the addresses 10.203.0.1 and 10.203.0.2. Then each line of its
 *              standard input is the round trip time in milliseconds from then on, answered by
 *              "ok". At the end of its input it ends, and the wire with it; the namespaces go
 *              with the last process in them.
 *
 * A packet that enters one device leaves the other half a round trip later, all in their order. The
 * wire has no rate: packets of one connection travel as the large segments that the kernel makes
 * (TSO), so that the wire costs little CPU; they count as many for the senders' windows all the
 * same.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PACKET_MAX (64 * 1024 + 1024)
#define FLYING_MAX (64u << 20) /* bytes under way; more waits in the device */

struct packet {
	struct packet *next;
	int64_t due_ns;
	size_t len;
	char bytes[];
};

/* One end: a thread that lives in the namespace, and carries what leaves it to the other end. */
struct end {
	const char *address;
	int tun;
	long thread_id;
	struct end *other;
	sem_t ready;
	struct packet *first, **last;
	size_t flying;
};

static _Atomic int64_t one_way_ns;

static void die(const char *what)
{
	fprintf(stderr, "delay: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int64_t now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ll + now.tv_nsec;
}

/* ---- a namespace with a device ---- */

static struct ifreq request_for(const char *device, const char *address)
{
	struct ifreq request = {0};
	struct sockaddr_in in = {.sin_family = AF_INET};
	strncpy(request.ifr_name, device, IFNAMSIZ - 1);
	if (address) {
		inet_pton(AF_INET, address, &in.sin_addr);
		memcpy(&request.ifr_addr, &in, sizeof(in));
	}
	return request;
}

static void set_up(const char *device, const char *address)
{
	int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (sock < 0)
		die("socket");
	struct ifreq request = request_for(device, address);
	if (address && ioctl(sock, SIOCSIFADDR, &request))
		die("SIOCSIFADDR");
	request = request_for(device, "255.255.255.0");
	if (address && ioctl(sock, SIOCSIFNETMASK, &request))
		die("SIOCSIFNETMASK");
	request = request_for(device, NULL);
	request.ifr_flags = IFF_UP | IFF_RUNNING;
	if (ioctl(sock, SIOCSIFFLAGS, &request))
		die("SIOCSIFFLAGS");
	close(sock);
}

static int tun_open(const char *device)
{
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
	struct ifreq request = request_for(device, NULL);
	request.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR;
	if (fd < 0 || ioctl(fd, TUNSETIFF, &request))
		die("/dev/net/tun");
	if (ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4))
		die("TUNSETOFFLOAD");
	return fd;
}

/* ---- carrying ---- */

static void take(struct end *end)
{
	static _Thread_local char bytes[PACKET_MAX];
	ssize_t len;
	while (end->flying < FLYING_MAX && (len = read(end->tun, bytes, sizeof(bytes))) > 0) {
		struct packet *packet = malloc(sizeof(*packet) + (size_t)len);
		if (!packet)
			die("malloc");
		packet->next = NULL;
		packet->due_ns = now_ns() + one_way_ns;
		packet->len = (size_t)len;
		memcpy(packet->bytes, bytes, (size_t)len);
		*end->last = packet;
		end->last = &packet->next;
		end->flying += (size_t)len;
	}
}

static void deliver(struct end *end)
{
	while (end->first && end->first->due_ns <= now_ns()) {
		struct packet *packet = end->first;
		end->first = packet->next;
		if (!end->first)
			end->last = &end->first;
		end->flying -= packet->len;
		/* What the other side does not take is lost, as on any wire. */
		if (write(end->other->tun, packet->bytes, packet->len) < 0 && errno == EBADF)
			die("write");
		free(packet);
	}
}

static void carry(struct end *end)
{
	for (;;) {
		struct pollfd in = {.fd = end->tun,
				    .events = end->flying < FLYING_MAX ? POLLIN : 0};
		struct timespec left = {0};
		if (end->first) {
			int64_t ns = end->first->due_ns - now_ns();
			ns = ns > 0 ? ns : 0;
			left = (struct timespec){ns / 1000000000, ns % 1000000000};
		}
		if (ppoll(&in, 1, end->first ? &left : NULL, NULL) < 0 && errno != EINTR)
			die("ppoll");
		take(end);
		deliver(end);
	}
}

static void *live(void *arg)
{
	struct end *end = arg;
	end->thread_id = syscall(SYS_gettid);
	prctl(PR_SET_TIMERSLACK, 1);
	if (unshare(CLONE_NEWNET))
		die("unshare");
	set_up("lo", NULL);
	end->tun = tun_open("wire");
	set_up("wire", end->address);
	sem_post(&end->ready);
	sem_wait(&end->other->ready);
	sem_post(&end->other->ready);
	carry(end);
	return NULL;
}

int main(void)
{
	struct end ends[2] = {{.address = "10.203.0.1"}, {.address = "10.203.0.2"}};
	for (int i = 0; i < 2; i++) {
		ends[i].other = &ends[!i];
		ends[i].last = &ends[i].first;
		sem_init(&ends[i].ready, 0, 0);
	}
	for (int i = 0; i < 2; i++) {
		pthread_t thread;
		if (pthread_create(&thread, NULL, live, &ends[i]))
			die("pthread_create");
	}
	for (int i = 0; i < 2; i++) {
		sem_wait(&ends[i].ready);
		sem_post(&ends[i].ready);
	}
	printf("/proc/%d/task/%ld/ns/net /proc/%d/task/%ld/ns/net\n", getpid(), ends[0].thread_id,
	       getpid(), ends[1].thread_id);
	fflush(stdout);
	double ms;
	while (scanf("%lf", &ms) == 1) {
		one_way_ns = (int64_t)(ms * 500000);
		puts("ok");
		fflush(stdout);
	}
	return 0;
}
