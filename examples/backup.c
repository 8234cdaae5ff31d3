/*
 * Backs a virtual disk up into a raw file, and shows how a program uses the library for that:
 *
 *   InitEx, ConnectEx, Open, GetInfo      what kind of disk is it
 *   QueryAllocatedBlocks                  which parts hold data at all; the rest are zeros and need no reading
 *   ReadAsync, Wait                       several requests in flight, finished in any order by other threads
 *   Close, Disconnect, Exit
 *
 * The output is sparse where the disk is. The SHA-256 printed at the end is that of the whole disk, holes included, so it
 * is the same as `sha256sum OUTPUT`.
 *
 *   cc -std=c99 -O2 -Wall -Wextra -pthread backup.c -I../include -L../lib64 -lvixDiskLib -o backup
 *
 * C99 and POSIX; of the library only the public header. Licence: Apache-2.0 OR MIT, like the library.
 */
#define _POSIX_C_SOURCE 200809L
#define _FILE_OFFSET_BITS 64

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#include "vixDiskLib.h"

/* ---- SHA-256 (FIPS 180-4) ----------------------------------------------------------------------------------------- */

struct sha256 {
    uint32_t state[8];
    uint64_t bytes;
    unsigned char block[64];
};

static const uint32_t sha256_k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static void sha256_init(struct sha256 *h)
{
    static const uint32_t start[8] = { 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                       0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19 };
    memcpy(h->state, start, sizeof start);
    h->bytes = 0;
}

static uint32_t rotr(uint32_t x, int n)
{
    return (x >> n) | (x << (32 - n));
}

/* One of the 64 rounds; the caller rotates the names instead of the values. */
#define ROUND(a, b, c, d, e, f, g, h, i)                                                                                \
    do {                                                                                                               \
        uint32_t t = h + (rotr(e, 6) ^ rotr(e, 11) ^ rotr(e, 25)) + (g ^ (e & (f ^ g))) + sha256_k[i] + w[i];          \
        d += t;                                                                                                        \
        h = t + (rotr(a, 2) ^ rotr(a, 13) ^ rotr(a, 22)) + ((a & b) | (c & (a | b)));                                  \
    } while (0)

static void sha256_block(struct sha256 *state, const unsigned char *p)
{
    uint32_t w[64], *s = state->state;
    uint32_t a = s[0], b = s[1], c = s[2], d = s[3], e = s[4], f = s[5], g = s[6], h = s[7];
    int i;

    for (i = 0; i < 16; i++, p += 4)
        w[i] = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
    for (; i < 64; i++)
        w[i] = w[i - 16] + (rotr(w[i - 15], 7) ^ rotr(w[i - 15], 18) ^ w[i - 15] >> 3) + w[i - 7]
               + (rotr(w[i - 2], 17) ^ rotr(w[i - 2], 19) ^ w[i - 2] >> 10);
    for (i = 0; i < 64; i += 8) {
        ROUND(a, b, c, d, e, f, g, h, i);
        ROUND(h, a, b, c, d, e, f, g, i + 1);
        ROUND(g, h, a, b, c, d, e, f, i + 2);
        ROUND(f, g, h, a, b, c, d, e, i + 3);
        ROUND(e, f, g, h, a, b, c, d, i + 4);
        ROUND(d, e, f, g, h, a, b, c, i + 5);
        ROUND(c, d, e, f, g, h, a, b, i + 6);
        ROUND(b, c, d, e, f, g, h, a, i + 7);
    }
    s[0] += a, s[1] += b, s[2] += c, s[3] += d, s[4] += e, s[5] += f, s[6] += g, s[7] += h;
}

static void sha256_add(struct sha256 *h, const unsigned char *p, size_t n)
{
    size_t have = h->bytes % 64;

    h->bytes += n;
    if (have) {
        size_t take = n < 64 - have ? n : 64 - have;
        memcpy(h->block + have, p, take);
        if (have + take < 64)
            return;
        sha256_block(h, h->block);
        p += take;
        n -= take;
    }
    for (; n >= 64; p += 64, n -= 64)
        sha256_block(h, p);
    memcpy(h->block, p, n);
}

static void sha256_hex(struct sha256 *h, char hex[65])
{
    static const unsigned char pad[64] = { 0x80 };
    uint64_t bits = h->bytes * 8;
    unsigned char length[8];
    int i;

    for (i = 0; i < 8; i++)
        length[i] = (unsigned char)(bits >> (56 - 8 * i));
    sha256_add(h, pad, 1 + (119 - h->bytes % 64) % 64);
    sha256_add(h, length, 8);
    for (i = 0; i < 8; i++)
        snprintf(hex + 8 * i, 9, "%08" PRIx32, h->state[i]);
}

/* ---- Saying things ------------------------------------------------------------------------------------------------ */

static bool verbose;

static void on_log(const char *fmt, va_list args)
{
    if (verbose)
        vfprintf(stderr, fmt, args);
}

static void on_error(const char *fmt, va_list args)
{
    vfprintf(stderr, fmt, args);
}

static int vix_failed(const char *what, VixError err)
{
    char *text = VixDiskLib_GetErrorText(err, NULL);
    fprintf(stderr, "backup: %s: error %" PRIu64 " (%s)\n", what, (uint64_t)VIX_ERROR_CODE(err), text ? text : "?");
    VixDiskLib_FreeErrorText(text);
    return 1;
}

static int failed(const char *what)
{
    fprintf(stderr, "backup: %s: %s\n", what, strerror(errno));
    return 1;
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* A bar that redraws itself on a terminal, and a line for every tenth elsewhere. */
struct progress {
    bool terminal;
    double began, drawn;
    int percent;
};

static void progress_show(struct progress *p, uint64_t done, uint64_t total)
{
    double now = seconds(), rate = now > p->began ? (double)done * 512 / 1048576 / (now - p->began) : 0;
    int percent = total ? (int)((double)done * 100 / (double)total) : 100, i;
    bool last = done == total;

    if (p->terminal ? !last && now - p->drawn < 0.1 : !last && percent / 10 == p->percent / 10)
        return;
    p->drawn = now;
    p->percent = percent;
    fprintf(stderr, "%s[", p->terminal ? "\r" : "");
    for (i = 0; i < 40; i++)
        fputc(i < percent * 40 / 100 ? '#' : '.', stderr);
    fprintf(stderr, "] %3d%%  %8.1f MiB  %8.1f MiB/s%s", percent, (double)done / 2048, rate,
            p->terminal && !last ? "" : "\n");
}

/* ---- The map: which sectors hold data ----------------------------------------------------------------------------- */

struct map {
    VixDiskLibBlock *blocks; /* ascending, disjoint; everything between them is zero */
    size_t count, room;
    uint64_t sectors;
};

static int map_add(struct map *m, uint64_t offset, uint64_t length)
{
    VixDiskLibBlock *last = m->count ? &m->blocks[m->count - 1] : NULL;

    m->sectors += length;
    if (last && last->offset + last->length == offset) {
        last->length += length;
        return 0;
    }
    if (m->count == m->room) {
        size_t room = m->room ? 2 * m->room : 1024;
        VixDiskLibBlock *more = realloc(m->blocks, room * sizeof *more);
        if (!more)
            return failed("the list of allocated blocks");
        m->blocks = more;
        m->room = room;
    }
    m->blocks[m->count].offset = offset;
    m->blocks[m->count].length = length;
    m->count++;
    return 0;
}

/*
 * Asks for whole chunks in steps of the largest allowed number of them, and takes the rest of the disk behind the last
 * whole chunk as data. That is right with every implementation of the interface. A disk that cannot tell is all data.
 */
static int map_query(VixDiskLibHandle disk, uint64_t capacity, struct map *m)
{
    const uint64_t chunk = VIXDISKLIB_MIN_CHUNK_SIZE, step = chunk * VIXDISKLIB_MAX_CHUNK_NUMBER;
    uint64_t whole = capacity / chunk * chunk, at;

    for (at = 0; at < whole; at += step) {
        uint64_t n = whole - at < step ? whole - at : step;
        VixDiskLibBlockList *list = NULL;
        VixError err = VixDiskLib_QueryAllocatedBlocks(disk, at, n, chunk, &list);
        uint32_t i;
        int bad = 0;

        if (VIX_FAILED(err)) {
            vix_failed("QueryAllocatedBlocks (reading everything instead)", err);
            m->count = 0;
            m->sectors = 0;
            return map_add(m, 0, capacity);
        }
        for (i = 0; i < list->numBlocks && !bad; i++)
            bad = map_add(m, list->blocks[i].offset, list->blocks[i].length);
        VixDiskLib_FreeBlockList(list);
        if (bad)
            return 1;
    }
    return whole < capacity ? map_add(m, whole, capacity - whole) : 0;
}

/* ---- The queue: requests in flight, in the order of the disk ------------------------------------------------------ */

struct queue;

struct request {
    struct queue *queue;
    unsigned char *buf;
    uint64_t start, count;
    bool data; /* false: a hole of any length, nothing was asked for */
    bool done; /* under queue->lock */
    VixError result;
};

struct queue {
    pthread_mutex_t lock;
    pthread_cond_t finished;
    struct request *ring;
    unsigned depth;
    uint64_t put, taken; /* requests ever put in and taken out; their place is the number modulo depth */
};

static int queue_init(struct queue *q, unsigned depth, size_t bytes)
{
    unsigned i;

    memset(q, 0, sizeof *q);
    pthread_mutex_init(&q->lock, NULL);
    pthread_cond_init(&q->finished, NULL);
    q->depth = depth;
    q->ring = calloc(depth, sizeof *q->ring);
    for (i = 0; q->ring && i < depth; i++) {
        void *buf = NULL;
        if (posix_memalign(&buf, 4096, bytes))
            return failed("buffers");
        q->ring[i].queue = q;
        q->ring[i].buf = buf;
    }
    return q->ring ? 0 : failed("buffers");
}

static void queue_free(struct queue *q)
{
    unsigned i;

    for (i = 0; q->ring && i < q->depth; i++)
        free(q->ring[i].buf);
    free(q->ring);
    pthread_cond_destroy(&q->finished);
    pthread_mutex_destroy(&q->lock);
}

/* Called by the library, on any thread, perhaps before ReadAsync has returned. */
static void on_done(void *data, VixError result)
{
    struct request *r = data;
    struct queue *q = r->queue;

    pthread_mutex_lock(&q->lock);
    r->result = result;
    r->done = true;
    pthread_cond_signal(&q->finished);
    pthread_mutex_unlock(&q->lock);
}

static int queue_put(struct queue *q, VixDiskLibHandle disk, uint64_t start, uint64_t count, bool data)
{
    struct request *r = &q->ring[q->put % q->depth];
    VixError err;

    r->start = start;
    r->count = count;
    r->data = data;
    r->done = !data;
    r->result = VIX_OK;
    if (data) {
        err = VixDiskLib_ReadAsync(disk, start, count, r->buf, on_done, r);
        if (err != VIX_ASYNC) /* refused: the callback will not come */
            return vix_failed("ReadAsync", err);
    }
    q->put++;
    return 0;
}

static struct request *queue_take(struct queue *q)
{
    struct request *r = &q->ring[q->taken % q->depth];

    pthread_mutex_lock(&q->lock);
    while (!r->done)
        pthread_cond_wait(&q->finished, &q->lock);
    pthread_mutex_unlock(&q->lock);
    q->taken++;
    return r;
}

/* ---- The backup --------------------------------------------------------------------------------------------------- */

struct options {
    const char *disk, *output, *verify;
    unsigned depth;
    uint64_t sectors; /* of one request */
    bool info_only, all, quiet;
};

struct backup {
    const struct options *options;
    int out; /* -1: none, only the hash */
    struct sha256 hash;
    struct progress progress;
    uint64_t capacity, done;
};

static int write_all(int fd, const unsigned char *p, size_t n, uint64_t at)
{
    while (n) {
        ssize_t wrote = pwrite(fd, p, n, (off_t)at);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote <= 0)
            return failed("writing the output");
        p += wrote;
        at += (uint64_t)wrote;
        n -= (size_t)wrote;
    }
    return 0;
}

static int take_one(struct backup *b, struct queue *q)
{
    static const unsigned char zeros[65536];
    struct request *r = queue_take(q);
    uint64_t bytes = r->count * VIXDISKLIB_SECTOR_SIZE;

    if (VIX_FAILED(r->result)) {
        fprintf(stderr, "backup: sectors %" PRIu64 " to %" PRIu64 "\n", r->start, r->start + r->count - 1);
        return vix_failed("reading", r->result);
    }
    if (r->data) {
        sha256_add(&b->hash, r->buf, bytes);
        if (b->out >= 0 && write_all(b->out, r->buf, bytes, r->start * VIXDISKLIB_SECTOR_SIZE))
            return 1;
    }
    while (!r->data && bytes) {
        size_t n = bytes < sizeof zeros ? bytes : sizeof zeros;
        sha256_add(&b->hash, zeros, n);
        bytes -= n;
    }
    b->done += r->count;
    if (!b->options->quiet)
        progress_show(&b->progress, b->done, b->capacity);
    return 0;
}

/* Puts `count` sectors in, in pieces; takes the oldest request out whenever the queue is full. */
static int put_range(struct backup *b, struct queue *q, VixDiskLibHandle disk, uint64_t start, uint64_t count, bool data)
{
    /* Holes go in pieces too, so that the bar moves while a large one is hashed. */
    const uint64_t piece = data ? b->options->sectors : 131072;

    while (count) {
        uint64_t n = count < piece ? count : piece;
        if (q->put - q->taken == q->depth && take_one(b, q))
            return 1;
        if (queue_put(q, disk, start, n, data))
            return 1;
        start += n;
        count -= n;
    }
    return 0;
}

static int copy_disk(struct backup *b, VixDiskLibHandle disk, const struct map *map)
{
    struct queue q;
    uint64_t at = 0;
    size_t i;
    int bad = queue_init(&q, b->options->depth, b->options->sectors * VIXDISKLIB_SECTOR_SIZE);

    for (i = 0; !bad && i < map->count; i++) {
        const VixDiskLibBlock *block = &map->blocks[i];
        bad = put_range(b, &q, disk, at, block->offset - at, false)
              || put_range(b, &q, disk, block->offset, block->length, true);
        at = block->offset + block->length;
    }
    bad = bad || put_range(b, &q, disk, at, b->capacity - at, false);
    while (!bad && q.taken < q.put)
        bad = take_one(b, &q);
    VixDiskLib_Wait(disk); /* after a fault requests may be in flight still, and the buffers are theirs */
    queue_free(&q);
    return bad;
}

static void print_info(const char *path, VixDiskLibHandle disk, const VixDiskLibInfo *info)
{
    printf("disk            %s\n", path);
    printf("capacity        %" PRIu64 " sectors, %.1f MiB\n", (uint64_t)info->capacity, (double)info->capacity / 2048);
    printf("links           %d\n", info->numLinks);
    if (info->parentFileNameHint)
        printf("parent          %s\n", info->parentFileNameHint);
    if (info->uuid)
        printf("uuid            %s\n", info->uuid);
    printf("geometry        %u/%u/%u\n", (unsigned)info->physGeo.cylinders, (unsigned)info->physGeo.heads,
           (unsigned)info->physGeo.sectors);
    printf("sector sizes    %u logical, %u physical\n", (unsigned)info->logicalSectorSize,
           (unsigned)info->physicalSectorSize);
    printf("transport       %s\n", VixDiskLib_GetTransportMode(disk));
}

static int finish(struct backup *b)
{
    char hex[65];

    if (b->out >= 0 && (ftruncate(b->out, (off_t)(b->capacity * VIXDISKLIB_SECTOR_SIZE)) || fsync(b->out)))
        return failed("finishing the output");
    sha256_hex(&b->hash, hex);
    printf("sha256          %s\n", hex);
    if (!b->options->verify)
        return 0;
    if (strcasecmp(hex, b->options->verify)) {
        fprintf(stderr, "backup: the SHA-256 differs, %s was expected\n", b->options->verify);
        return 1;
    }
    printf("verified        the SHA-256 is the expected one\n");
    return 0;
}

static int backup_disk(const struct options *o, VixDiskLibHandle disk)
{
    VixDiskLibInfo *info = NULL;
    VixError err = VixDiskLib_GetInfo(disk, &info);
    struct map map = { NULL, 0, 0, 0 };
    struct backup b;
    int bad;

    if (VIX_FAILED(err))
        return vix_failed("GetInfo", err);
    memset(&b, 0, sizeof b);
    b.options = o;
    b.out = -1;
    b.capacity = info->capacity;
    sha256_init(&b.hash);
    print_info(o->disk, disk, info);
    VixDiskLib_FreeInfo(info);

    bad = o->all ? map_add(&map, 0, b.capacity) : map_query(disk, b.capacity, &map);
    if (!bad)
        printf("allocated       %" PRIu64 " sectors in %zu ranges, %.1f%%\n", map.sectors, map.count,
               b.capacity ? (double)map.sectors * 100 / (double)b.capacity : 0.0);
    fflush(stdout);
    if (!bad && !o->info_only) {
        if (o->output && (b.out = open(o->output, O_WRONLY | O_CREAT | O_TRUNC, 0666)) < 0)
            bad = failed(o->output);
        b.progress.terminal = isatty(STDERR_FILENO);
        b.progress.began = seconds();
        b.progress.percent = -10;
        bad = bad || copy_disk(&b, disk, &map) || finish(&b);
        if (b.out >= 0 && close(b.out))
            bad = failed(o->output);
        if (bad && b.out >= 0)
            fprintf(stderr, "backup: %s is incomplete\n", o->output);
    }
    free(map.blocks);
    return bad;
}

static int with_library(const struct options *o)
{
    VixDiskLibConnectParams *params;
    VixDiskLibConnection connection = NULL;
    VixDiskLibHandle disk = NULL;
    VixError err = VixDiskLib_InitEx(7, 0, on_log, on_error, on_error, NULL, NULL);
    int bad = 0;

    if (VIX_FAILED(err))
        return vix_failed("InitEx", err);
    params = VixDiskLib_AllocateConnectParams(); /* empty: local disks */
    err = VixDiskLib_ConnectEx(params, TRUE, NULL, NULL, &connection);
    if (VIX_FAILED(err)) {
        bad = vix_failed("ConnectEx", err);
    } else {
        err = VixDiskLib_Open(connection, o->disk, VIXDISKLIB_FLAG_OPEN_READ_ONLY, &disk);
        if (VIX_FAILED(err)) {
            bad = vix_failed(o->disk, err);
        } else {
            bad = backup_disk(o, disk);
            err = VixDiskLib_Close(disk);
            bad = VIX_FAILED(err) ? vix_failed("Close", err) : bad;
        }
        VixDiskLib_Disconnect(connection);
    }
    VixDiskLib_FreeConnectParams(params);
    VixDiskLib_Exit();
    return bad;
}

static void usage(FILE *to)
{
    fputs("usage: backup [options] DISK.vmdk [OUTPUT.raw]\n"
          "Reads a virtual disk with its parents into a sparse raw file and prints its SHA-256.\n"
          "Without OUTPUT only the SHA-256 is made.\n"
          "  -q, --depth N      requests in flight (8)\n"
          "  -s, --size KIB     size of a request (1024)\n"
          "  -a, --all          read everything, do not ask which blocks are allocated\n"
          "  -i, --info         say what kind of disk it is and stop\n"
          "  -V, --verify HEX   fail unless this is the SHA-256 of the disk\n"
          "  -n, --no-progress  no progress bar\n"
          "  -v, --verbose      show the library's log\n", to);
}

static bool number(const char *text, uint64_t least, uint64_t most, uint64_t *out)
{
    char *end;

    errno = 0;
    *out = strtoull(text, &end, 10);
    return !errno && end != text && !*end && *text != '-' && *out >= least && *out <= most;
}

int main(int argc, char **argv)
{
    static const struct option names[] = {
        { "depth", 1, NULL, 'q' }, { "size", 1, NULL, 's' },        { "all", 0, NULL, 'a' },
        { "info", 0, NULL, 'i' },  { "verify", 1, NULL, 'V' },      { "no-progress", 0, NULL, 'n' },
        { "help", 0, NULL, 'h' },  { "verbose", 0, NULL, 'v' },     { NULL, 0, NULL, 0 },
    };
    struct options o = { NULL, NULL, NULL, 8, 2048, false, false, false };
    uint64_t n = 0;
    bool good = true;
    int c;

    while (good && (c = getopt_long(argc, argv, "q:s:aiV:nvh", names, NULL)) != -1) {
        switch (c) {
        case 'q': good = number(optarg, 1, 1024, &n), o.depth = (unsigned)n; break;
        case 's': good = number(optarg, 1, 65536, &n), o.sectors = n * 2; break;
        case 'a': o.all = true; break;
        case 'i': o.info_only = true; break;
        case 'V': o.verify = optarg; break;
        case 'n': o.quiet = true; break;
        case 'v': verbose = true; break;
        case 'h': usage(stdout); return 0;
        default: good = false;
        }
    }
    if (!good || argc - optind < 1 || argc - optind > 2) {
        usage(stderr);
        return 2;
    }
    o.disk = argv[optind];
    o.output = argv[optind + 1];
    return with_library(&o);
}
