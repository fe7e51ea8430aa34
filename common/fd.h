/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * File descriptors: owned ones close themselves, reads and writes are whole,
 * messages carry descriptors. Every descriptor we make is close-on-exec.
 */
#ifndef XLV_FD_H
#define XLV_FD_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Closes *fd unless it is -1, sets it to -1, keeps errno. */
void xlv_close(int *fd);

/* int fd XLV_CLOSE = -1;  closes at the end of the scope */
#define XLV_CLOSE __attribute__((cleanup(xlv_close)))

/* Frees what p points to: for char *s XLV_FREE = NULL; */
void xlv_free(void *p);
#define XLV_FREE __attribute__((cleanup(xlv_free)))

/*
 * An exclusive flock(2) of fd, for which this waits *patience milliseconds at most, and takes what
 * it waited off that. 0; -EWOULDBLOCK: another has it still; -errno.
 */
int xlv_lock_within(int fd, int64_t *patience);

/*
 * Whole transfers: retried on EINTR and short counts. 0 or -errno; a read that
 * meets the end of the file returns -ENODATA.
 */
int xlv_write_all(int fd, const void *data, size_t length);
int xlv_read_all(int fd, void *data, size_t length);
int xlv_pwrite_all(int fd, const void *data, size_t length, off_t offset);
int xlv_pread_all(int fd, void *data, size_t length, off_t offset);

/*
 * One message of a SOCK_SEQPACKET socket with up to nfds descriptors.
 * Sending: 0 or -errno (-EPIPE: the peer is gone; no signal is raised).
 */
int xlv_send_message(int socket, const void *data, size_t length, const int *fds, size_t nfds);

/*
 * Receiving: 0 and *length bytes in data (capacity given in *length), the
 * descriptors in fds (*nfds holds the room on entry, the count on return;
 * owned by the caller, close-on-exec). XLV_E_GONE: the peer closed.
 * XLV_E_INVALID: longer than the buffer or more descriptors than room (all
 * received ones are closed). -EAGAIN: nothing there (non-blocking sockets).
 */
int xlv_receive_message(int socket, void *data, size_t *length, int *fds, size_t *nfds);

#endif
