/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Functions that no room may call, poisoned. Included by util.h, so that every
 * room gets it after the system headers it includes first.
 */
#ifndef REGFS_BANNED_H
#define REGFS_BANNED_H

#pragma GCC poison strcpy strcat sprintf vsprintf strtok atoi atol gets

#endif
