// SPDX-License-Identifier: Apache-2.0
/*
 * cache_guard: a file cut short under a map must not end the process.
 * Knows SIGBUS and address ranges. Must not know what is mapped.
 *
 * This is process-wide state, and cannot be otherwise: a signal has one handler. It is
 * installed once, hands on what is not ours to the handler before it, and only reads what
 * follows here. Ranges live in chunks that are linked once and never freed or moved, so that the
 * handler may look at them at any moment without a lock.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cache_priv.h"

#define CHUNK_RANGES 128

/* start 0: free; 1: being filled in. The other fields are valid while start is more. */
struct range {
	_Atomic uintptr_t start;
	_Atomic size_t len;
	_Atomic int prot;
	bool broken;
};

struct chunk {
	struct range range[CHUNK_RANGES];
	struct chunk *next;
};

static _Atomic(struct chunk *) chunks;
/* Written before the handler can run. */
static struct sigaction previous;
static uintptr_t page_size;

static struct range *range_of(uintptr_t addr)
{
	for (struct chunk *chunk = atomic_load(&chunks); chunk; chunk = chunk->next) {
		for (size_t i = 0; i < CHUNK_RANGES; i++) {
			struct range *range = &chunk->range[i];
			uintptr_t start = atomic_load(&range->start);
			size_t len = atomic_load(&range->len);
			if (start > 1 && addr >= start && addr - start < len &&
			    atomic_load(&range->start) == start)
				return range;
		}
	}
	return NULL;
}

/* A page of zeros in the place of the one that is gone; the access is then repeated. By the bare
 * call: mmap(3) is not said to be safe in a handler, and the thread sanitizer, which sees it,
 * takes it for an unlocked write of all of the page. */
static bool patch(struct range *range, uintptr_t addr)
{
#ifdef SYS_mmap2 /* its last argument counts pages: none here */
	const long call = SYS_mmap2;
#else
	const long call = SYS_mmap;
#endif
	uintptr_t page = addr & ~(page_size - 1);
	__atomic_store_n(&range->broken, true, __ATOMIC_RELAXED);
	return syscall(call, page, page_size, atomic_load(&range->prot),
		       MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0L) != -1;
}

static void hand_on(int sig, siginfo_t *info, void *context)
{
	bool sent = info->si_code <= 0; /* by kill(2), not by an access */
	if (previous.sa_flags & SA_SIGINFO) {
		previous.sa_sigaction(sig, info, context);
	} else if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) {
		previous.sa_handler(sig);
	} else if (previous.sa_handler == SIG_DFL || !sent) {
		/* The access is repeated, and ends the process as it would have. */
		struct sigaction fall = {.sa_handler = SIG_DFL};
		sigaction(sig, &fall, NULL);
		if (sent)
			raise(sig);
	}
}

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
	int saved = errno;
	struct range *range = info->si_code > 0 ? range_of((uintptr_t)info->si_addr) : NULL;
	if (!range || !patch(range, (uintptr_t)info->si_addr))
		hand_on(sig, info, context);
	errno = saved;
}

static void install(void)
{
	struct sigaction action = {.sa_sigaction = on_sigbus,
				   .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK};
	sigemptyset(&action.sa_mask);
	page_size = (uintptr_t)sysconf(_SC_PAGESIZE);
	sigaction(SIGBUS, NULL, &previous);
	sigaction(SIGBUS, &action, NULL);
}

static struct range *claim(void)
{
	for (struct chunk *chunk = atomic_load(&chunks); chunk; chunk = chunk->next) {
		for (size_t i = 0; i < CHUNK_RANGES; i++) {
			uintptr_t none = 0;
			if (atomic_compare_exchange_strong(&chunk->range[i].start, &none, 1))
				return &chunk->range[i];
		}
	}
	struct chunk *chunk = calloc(1, sizeof(*chunk));
	if (!chunk)
		return NULL;
	atomic_store(&chunk->range[0].start, 1);
	chunk->next = atomic_load(&chunks);
	while (!atomic_compare_exchange_weak(&chunks, &chunk->next, chunk))
		;
	return &chunk->range[0];
}

bool *cache_guard_add(const void *addr, size_t len, int prot)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	pthread_once(&once, install);
	struct range *range = claim();
	if (!range)
		return NULL;
	__atomic_store_n(&range->broken, false, __ATOMIC_RELAXED);
	atomic_store(&range->len, len);
	atomic_store(&range->prot, prot);
	atomic_store(&range->start, (uintptr_t)addr);
	return &range->broken;
}

void cache_guard_remove(bool *broken)
{
	if (broken)
		atomic_store(&CONTAINER_OF(broken, struct range, broken)->start, 0);
}
