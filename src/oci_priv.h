/* SPDX-License-Identifier: Apache-2.0 */
/*
 * oci_priv: what the files of the room oci share; nobody else includes it.
 */
#ifndef REGFS_OCI_PRIV_H
#define REGFS_OCI_PRIV_H

#include "regfs/json.h"
#include "regfs/oci.h"

#define OCI_ITEMS_MAX	JSON_ITEMS_MAX /* layers, children */
#define OCI_HISTORY_MAX (4 * OCI_ITEMS_MAX)
#define OCI_SIZE_MAX	JSON_INTEGER_MAX

#define OCI_REF_NAME "org.opencontainers.image.ref.name"

/* Parts of documents. What was read before an error stays in RET, which the caller zeroes before
 * and releases after. */
void json_digest(struct json_reader *reader, const char *str, struct digest *ret);
void json_platform(struct json_reader *reader, const cJSON *json, struct oci_platform *ret);
void json_descriptor(struct json_reader *reader, const cJSON *json, struct oci_descriptor *ret);
/* The elements of LIST, and the field "annotations" of JSON; freed by the functions below. */
struct oci_descriptor *json_descriptors(struct json_reader *reader, const cJSON *list,
					size_t *ret_n);
struct oci_annotation *json_annotations(struct json_reader *reader, const cJSON *json,
					size_t *ret_n);
void oci_descriptors_free(struct oci_descriptor *descriptors, size_t n);
void oci_annotations_free(struct oci_annotation *annotations, size_t n);

#endif
