/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layerstore_info: names of references and what a runtime is told of a layer. Pure.
 */
#include <errno.h>
#include <inttypes.h>

#include "layerstore_priv.h"

int layerstore_reference(const char *name, struct ref *ret)
{
	AUTO_FREE char *text = NULL;
	const char *why;
	size_t len;
	int r = base64_decode(name, &text, &len);

	if (r == -ENOMEM)
		return r;
	if (r < 0 || strlen(text) != len || ref_parse(text, ret, &why) < 0)
		return -ENOENT;
	return 0;
}

/* archive.Compression of containers/storage: what its reader of blobs is to expect. It looks at the
 * bytes wherever it expects any, so that a media type that lies does no harm. */
static int compression(const struct layerstore_facts *facts)
{
	enum { PLAIN = 0, GZIP = 2, ZSTD = 4 };

	if (digest_equal(&facts->layer->digest, facts->diff_id))
		return PLAIN;
	return ends_with(facts->layer->media_type, "zstd") ? ZSTD : GZIP;
}

int layerstore_info(const struct layerstore_facts *facts, struct buf *ret)
{
	char digest[DIGEST_STR_MAX], diff_id[DIGEST_STR_MAX];
	int r = buf_printf(ret, "{\"compression\":%d,\"compressed-size\":%" PRId64,
			   compression(facts), facts->layer->size);

	digest_format(facts->diff_id, diff_id);
	if (r == 0 && facts->toc)
		r = buf_printf(ret,
			       ",\"toc-digest\":\"%s\","
			       "\"flags\":{\"expected-layer-diffid\":\"%s\"}",
			       digest_format(facts->toc, digest), diff_id);
	else if (r == 0)
		r = buf_printf(ret, ",\"compressed-diff-digest\":\"%s\",\"diff-digest\":\"%s\"",
			       digest_format(&facts->layer->digest, digest), diff_id);
	if (r == 0 && (facts->diff_size >= 0 || facts->toc))
		r = buf_printf(ret, ",\"diff-size\":%" PRId64, facts->diff_size);
	return r < 0 ? r : buf_puts(ret, "}\n");
}
