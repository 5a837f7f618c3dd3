// SPDX-License-Identifier: Apache-2.0
/*
 * layer_pieces: decoded pieces in memory, the last used ones of all layers.
 * Knows where a piece lies in which stream. Must not know how pieces are made.
 *
 * The table is cut into shards, each with a lock of its own and its own oldest piece, so that
 * readers of different pieces do not meet. A piece in it is constant and counted.
 */
#include "layer_priv.h"

#define SHARDS	   16
#define BUCKETS	   16
#define PIECES_MAX 8 /* of a shard; 16 MiB in all */

struct shard {
	pthread_mutex_t lock;
	/* guarded by lock */
	struct span_piece *buckets[BUCKETS];
	struct span_piece *newest, *oldest;
	unsigned n;
};

struct pieces {
	struct shard shards[SHARDS];
};

struct pieces *pieces_new(void)
{
	struct pieces *pieces = calloc(1, sizeof(*pieces));

	for (unsigned i = 0; pieces && i < SHARDS; i++)
		pthread_mutex_init(&pieces->shards[i].lock, NULL);
	return pieces;
}

void pieces_free(struct pieces *pieces)
{
	for (unsigned i = 0; pieces && i < SHARDS; i++) {
		struct shard *shard = &pieces->shards[i];

		while (shard->newest) {
			struct span_piece *piece = shard->newest;

			shard->newest = piece->older;
			span_piece_unref(piece);
		}
		pthread_mutex_destroy(&shard->lock);
	}
	free(pieces);
}

struct span_piece *span_piece_new(uint64_t serial, uint64_t off)
{
	struct span_piece *piece = malloc(sizeof(*piece));

	if (!piece)
		return NULL;
	atomic_init(&piece->refs, 1);
	piece->serial = serial;
	piece->off = off;
	piece->len = 0;
	return piece;
}

void span_piece_unref(struct span_piece *piece)
{
	if (piece && atomic_fetch_sub(&piece->refs, 1) == 1)
		free(piece);
}

static struct shard *shard_of(struct pieces *pieces, uint64_t hash)
{
	return &pieces->shards[hash / BUCKETS % SHARDS];
}

static uint64_t hash_of(uint64_t serial, uint64_t off)
{
	return hash64(serial, &off, sizeof(off));
}

/* --- lock held --- */

static void age_unlink(struct shard *shard, struct span_piece *piece)
{
	*(piece->newer ? &piece->newer->older : &shard->newest) = piece->older;
	*(piece->older ? &piece->older->newer : &shard->oldest) = piece->newer;
}

static void age_link(struct shard *shard, struct span_piece *piece)
{
	piece->newer = NULL;
	piece->older = shard->newest;
	*(shard->newest ? &shard->newest->newer : &shard->oldest) = piece;
	shard->newest = piece;
}

static struct span_piece *drop_oldest(struct shard *shard)
{
	struct span_piece *piece = shard->oldest;
	struct span_piece **link = &shard->buckets[hash_of(piece->serial, piece->off) % BUCKETS];

	while (*link != piece)
		link = &(*link)->chain;
	*link = piece->chain;
	age_unlink(shard, piece);
	shard->n--;
	return piece;
}

/* --- any thread --- */

struct span_piece *pieces_find(struct pieces *pieces, uint64_t serial, uint64_t off)
{
	uint64_t hash = hash_of(serial, off);
	struct shard *shard = shard_of(pieces, hash);
	struct span_piece *piece;

	pthread_mutex_lock(&shard->lock);
	piece = shard->buckets[hash % BUCKETS];
	while (piece && (piece->serial != serial || piece->off != off))
		piece = piece->chain;
	if (piece) {
		age_unlink(shard, piece);
		age_link(shard, piece);
		atomic_fetch_add(&piece->refs, 1);
	}
	pthread_mutex_unlock(&shard->lock);
	return piece;
}

void pieces_add(struct pieces *pieces, struct span_piece *piece)
{
	uint64_t hash = hash_of(piece->serial, piece->off);
	struct shard *shard = shard_of(pieces, hash);
	struct span_piece *gone = NULL;

	pthread_mutex_lock(&shard->lock);
	if (shard->n == PIECES_MAX)
		gone = drop_oldest(shard);
	piece->chain = shard->buckets[hash % BUCKETS];
	shard->buckets[hash % BUCKETS] = piece;
	age_link(shard, piece);
	shard->n++;
	pthread_mutex_unlock(&shard->lock);
	span_piece_unref(gone);
}
