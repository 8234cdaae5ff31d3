/*
 * Backs a virtual disk up into a raw file, and shows how a program uses the library for that:
 *
 *   InitEx                                log functions, configuration
 *   PrepareForAccess                      vCenter must not move the machine meanwhile
 *   ConnectEx, Open, GetInfo              what kind of disk is it
 *   QueryAllocatedBlocks                  which parts hold data at all; the rest are zeros and need no reading
 *   ReadAsync, Wait                       several requests in flight, finished in any order by other threads
 *   Close, Disconnect
 *   EndAccess, Cleanup, Exit
 *
 * The disk is a file of this machine or, with --server, one of a virtual machine of vCenter or ESXi. The output is sparse
 * where the disk is. The SHA-256 printed at the end is that of the whole disk, holes included, so it is the same as
 * `sha256sum OUTPUT`.
 *
 * With --areas only the listed areas are read, and written over an OUTPUT that an earlier run left: an incremental backup.
 * changed_areas.py makes the snapshot and the list. A run that fails midway is repeated with the same list.
 *
 *   cc -std=c99 -O2 -Wall -Wextra -pthread backup.c -I../include -L../lib64 -lvixDiskLib -o backup
 *
 * C99 and POSIX; of the library only the public header, and three small headers next to this file.
 * Licence: Apache-2.0 OR MIT, like the library.
 */
#define _POSIX_C_SOURCE 200809L
#define _FILE_OFFSET_BITS 64

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "blocks.h"
#include "say.h"
#include "sha256.h"
#include "vixDiskLib.h"

/* Under this name vCenter notes who keeps a machine in place; a later run may take back what a killed one left. */
#define IDENTITY "vix-disk-lib example backup"

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
    const char *disk, *output, *verify, *areas, *config;
    const char *server; /* NULL: the disk is a file, and what follows is not used */
    const char *user, *password_file, *cookie_file, *thumbprint, *vm, *snapshot, *transports;
    uint64_t port, nfc_port;
    uint32 compression; /* a flag of Open */
    uint64_t depth, sectors; /* requests in flight, sectors of one */
    bool info_only, all, quiet;
};

struct backup {
    const struct options *options;
    int out; /* -1: none, only the hash */
    struct sha256 hash; /* of the whole disk; not made of areas */
    struct progress progress;
    uint64_t capacity, total, done; /* sectors: of the disk, of this run, of it so far */
};

/* Set by the first interrupt: the run ends in order and vCenter is told. The second one ends the program at once. */
static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
    interrupted = number;
}

static void catch_signals(void)
{
    struct sigaction action;

    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    action.sa_flags = (int)SA_RESETHAND;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

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
    if (interrupted) {
        fputs("backup: interrupted\n", stderr);
        return 1;
    }
    if (r->data) {
        if (!b->options->areas)
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
        progress_show(&b->progress, b->done, b->total);
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
    const bool holes = !b->options->areas; /* between areas the output stays as it is */
    int bad = queue_init(&q, (unsigned)b->options->depth, b->options->sectors * VIXDISKLIB_SECTOR_SIZE);

    for (i = 0; !bad && i < map->count; i++) {
        const VixDiskLibBlock *block = &map->blocks[i];
        bad = (holes && put_range(b, &q, disk, at, block->offset - at, false))
              || put_range(b, &q, disk, block->offset, block->length, true);
        at = block->offset + block->length;
    }
    bad = bad || (holes && put_range(b, &q, disk, at, b->capacity - at, false));
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

/* Of areas alone there is no hash to compare: the whole output is read for it. */
static int hash_output(struct backup *b)
{
    static unsigned char buf[65536];
    uint64_t at = 0, end = b->capacity * VIXDISKLIB_SECTOR_SIZE;

    while (at < end) {
        size_t want = end - at < sizeof buf ? (size_t)(end - at) : sizeof buf;
        ssize_t got = pread(b->out, buf, want, (off_t)at);
        if (got < 0 && errno == EINTR && !interrupted)
            continue;
        if (got <= 0)
            return failed("reading the output");
        sha256_add(&b->hash, buf, (size_t)got);
        at += (uint64_t)got;
    }
    return 0;
}

static int finish(struct backup *b)
{
    const struct options *o = b->options;
    char hex[65];

    if (b->out >= 0 && (ftruncate(b->out, (off_t)(b->capacity * VIXDISKLIB_SECTOR_SIZE)) || fsync(b->out)))
        return failed("finishing the output");
    if (o->areas && !o->verify)
        return 0;
    if (o->areas && hash_output(b))
        return 1;
    sha256_hex(&b->hash, hex);
    printf("sha256          %s\n", hex);
    if (!o->verify)
        return 0;
    if (strcasecmp(hex, o->verify)) {
        fprintf(stderr, "backup: the SHA-256 differs, %s was expected\n", o->verify);
        return 1;
    }
    printf("verified        the SHA-256 is the expected one\n");
    return 0;
}

/* A new file, or for areas the one that is there. */
static int open_output(struct backup *b)
{
    const struct options *o = b->options;
    struct stat s;

    b->out = open(o->output, o->areas ? O_RDWR : O_WRONLY | O_CREAT | O_TRUNC, 0666);
    if (b->out < 0 || fstat(b->out, &s))
        return failed(o->output);
    if (!o->areas || (uint64_t)s.st_size == b->capacity * VIXDISKLIB_SECTOR_SIZE)
        return 0;
    fprintf(stderr, "backup: %s is no backup of this disk: it has %" PRIu64 " bytes, the disk %" PRIu64 "\n", o->output,
            (uint64_t)s.st_size, b->capacity * VIXDISKLIB_SECTOR_SIZE);
    close(b->out);
    b->out = -1;
    return 1;
}

static int copy_map(struct backup *b, VixDiskLibHandle disk, const struct map *map)
{
    int bad = b->options->output ? open_output(b) : 0;

    b->total = b->options->areas ? map->sectors : b->capacity;
    b->progress.terminal = isatty(STDERR_FILENO);
    b->progress.began = seconds();
    b->progress.percent = -10;
    bad = bad || copy_disk(b, disk, map) || finish(b);
    if (bad && b->out >= 0)
        fprintf(stderr, "backup: %s is incomplete\n", b->options->output);
    if (b->out >= 0 && close(b->out))
        bad = failed(b->options->output);
    return bad;
}

static int find_map(const struct options *o, VixDiskLibHandle disk, uint64_t capacity, struct map *map)
{
    if (o->areas)
        return map_areas(o->areas, capacity, map);
    return o->all ? map_add(map, 0, capacity) : map_query(disk, capacity, map);
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

    bad = find_map(o, disk, b.capacity, &map);
    if (!bad)
        printf("%s       %" PRIu64 " sectors in %zu ranges, %.1f%%\n", o->areas ? "changed  " : "allocated", map.sectors,
               map.count, b.capacity ? (double)map.sectors * 100 / (double)b.capacity : 0.0);
    fflush(stdout);
    if (!bad && !o->info_only)
        bad = copy_map(&b, disk, &map);
    free(map.blocks);
    return bad;
}

/* ---- The connection ----------------------------------------------------------------------------------------------- */

static void forget(char *secret)
{
    volatile char *p = secret;

    while (p && *p)
        *p++ = 0;
    free(secret);
}

/* The first line of a file: passwords and cookies have no place among arguments, where everybody sees them. */
static char *first_line(const char *path)
{
    FILE *f = fopen(path, "r");
    char *line = NULL;
    size_t room = 0;

    if (f)
        setvbuf(f, NULL, _IONBF, 0);
    if (!f || getline(&line, &room, f) < 0) {
        if (f && !ferror(f))
            fprintf(stderr, "backup: %s is empty\n", path);
        else
            failed(path);
        free(line);
        line = NULL;
    } else {
        line[strcspn(line, "\r\n")] = 0;
    }
    if (f)
        fclose(f);
    return line;
}

static char *password(const struct options *o)
{
    const char *value = getenv("VIX_PASSWORD");

    if (o->password_file)
        return first_line(o->password_file);
    if (!value)
        fputs("backup: no password: neither --password-file nor VIX_PASSWORD is given\n", stderr);
    return value ? strdup(value) : NULL;
}

/* `secret` is to be forgotten after the last use of `params`, into which the library does not copy. */
static int fill_params(const struct options *o, VixDiskLibConnectParams *params, char **secret)
{
    params->serverName = (char *)o->server;
    params->thumbPrint = (char *)o->thumbprint;
    params->vmxSpec = (char *)o->vm;
    params->port = (uint32)o->port;
    params->nfcHostPort = (uint32)o->nfc_port;
    if (o->cookie_file) {
        params->credType = VIXDISKLIB_CRED_SESSIONID;
        params->creds.sessionId.cookie = *secret = first_line(o->cookie_file);
        params->creds.sessionId.userName = (char *)o->user;
        return !*secret;
    }
    if (!o->user)
        return 0;
    params->credType = VIXDISKLIB_CRED_UID;
    params->creds.uid.userName = (char *)o->user;
    params->creds.uid.password = *secret = password(o);
    return !*secret;
}

/* True when EndAccess is owed. Without it a backup still works; vCenter is then free to move the machine in the middle. */
static bool prepare(const VixDiskLibConnectParams *params)
{
    VixError err = VixDiskLib_PrepareForAccess(params, IDENTITY);

    if (VIX_ERROR_CODE(err) == VIX_E_NOT_SUPPORTED) /* a single host: nobody there would move it */
        return false;
    if (VIX_ERROR_CODE(err) == VIX_E_OPERATION_DISABLED)
        fputs("backup: somebody else keeps the machine in place already\n", stderr);
    else if (VIX_FAILED(err))
        vix_failed("PrepareForAccess (going on without)", err);
    return VIX_SUCCEEDED(err);
}

static void clean_up(const VixDiskLibConnectParams *params, bool prepared)
{
    uint32 cleaned = 0, remaining = 0;
    VixError err = prepared ? VixDiskLib_EndAccess(params, IDENTITY) : VIX_OK;

    if (VIX_FAILED(err))
        vix_failed("EndAccess", err);
    err = VixDiskLib_Cleanup(params, &cleaned, &remaining);
    if (VIX_FAILED(err))
        vix_failed("Cleanup", err);
    if (remaining)
        fprintf(stderr, "backup: %u things that crashed programs left are still there\n", (unsigned)remaining);
}

static int with_connection(const struct options *o, const VixDiskLibConnectParams *params)
{
    VixDiskLibConnection connection = NULL;
    VixDiskLibHandle disk = NULL;
    VixError err = VixDiskLib_ConnectEx(params, TRUE, o->snapshot, o->transports, &connection);
    int bad;

    if (VIX_FAILED(err))
        return vix_failed("ConnectEx", err);
    err = VixDiskLib_Open(connection, o->disk, VIXDISKLIB_FLAG_OPEN_READ_ONLY | o->compression, &disk);
    if (VIX_FAILED(err)) {
        bad = vix_failed(*o->disk ? o->disk : "Open", err);
    } else {
        bad = backup_disk(o, disk);
        err = VixDiskLib_Close(disk);
        bad = VIX_FAILED(err) ? vix_failed("Close", err) : bad;
    }
    VixDiskLib_Disconnect(connection);
    return bad;
}

static int with_library(const struct options *o)
{
    VixDiskLibConnectParams *params;
    char *secret = NULL;
    VixError err = VixDiskLib_InitEx(7, 0, on_log, on_error, on_error, NULL, o->config);
    int bad;

    if (VIX_FAILED(err))
        return vix_failed("InitEx", err);
    params = VixDiskLib_AllocateConnectParams(); /* empty: local disks */
    bad = params ? fill_params(o, params, &secret) : failed("the parameters");
    if (!bad) {
        bool prepared = o->vm && prepare(params);
        bad = with_connection(o, params);
        if (o->server)
            clean_up(params, prepared);
    }
    VixDiskLib_FreeConnectParams(params);
    forget(secret);
    VixDiskLib_Exit();
    return bad;
}

static void usage(FILE *to)
{
    fputs("usage: backup [options] DISK.vmdk [OUTPUT.raw]\n"
          "       backup --server HOST --user NAME --vm moref=ID [options] '[DATASTORE] DIR/DISK.vmdk' [OUTPUT.raw]\n"
          "Reads a virtual disk with its parents into a sparse raw file and prints its SHA-256.\n"
          "Without OUTPUT only the SHA-256 is made.\n"
          "  -q, --depth N          requests in flight (8)\n"
          "  -s, --size KIB         size of a request (1024)\n"
          "  -a, --all              read everything, do not ask which blocks are allocated\n"
          "  -A, --areas FILE       read only these areas, lines of start and length in bytes, and write them over\n"
          "                         OUTPUT, the backup that is there; - is the standard input\n"
          "  -i, --info             say what kind of disk it is and stop\n"
          "  -V, --verify HEX       fail unless this is the SHA-256 of the disk; with --areas, of OUTPUT\n"
          "  -n, --no-progress      no progress bar\n"
          "  -v, --verbose          show the library's log\n"
          "      --config FILE      the library's configuration\n"
          "A disk of a server:\n"
          "      --server HOST      vCenter or ESXi, or nbd://HOST\n"
          "      --port N           of its API (443)\n"
          "      --nfc-port N       of its disks (902)\n"
          "      --user NAME        login; the password is the first line of the next, or of the variable VIX_PASSWORD\n"
          "      --password-file FILE\n"
          "      --cookie-file FILE the cookie of a session that is logged in, instead of user and password\n"
          "      --thumbprint HEX   of the server's certificate, AA:BB:...\n"
          "      --vm moref=ID      the virtual machine\n"
          "      --snapshot ID      the snapshot to read; a running machine needs one\n"
          "      --transports LIST  in the order to try, such as nbdssl:nbd\n"
          "      --compression HOW  of the transfer: none, zlib, fastlz or skipz\n", to);
}

static bool number(const char *text, uint64_t least, uint64_t most, uint64_t *out)
{
    char *end;

    errno = 0;
    *out = strtoull(text, &end, 10);
    return !errno && end != text && !*end && *text != '-' && *out >= least && *out <= most;
}

static bool compression(const char *name, uint32 *flag)
{
    *flag = !strcmp(name, "zlib") ? VIXDISKLIB_FLAG_OPEN_COMPRESSION_ZLIB
            : !strcmp(name, "fastlz") ? VIXDISKLIB_FLAG_OPEN_COMPRESSION_FASTLZ
            : !strcmp(name, "skipz") ? VIXDISKLIB_FLAG_OPEN_COMPRESSION_SKIPZ : 0;
    return *flag || !strcmp(name, "none");
}

/* Long options without a letter. */
enum { SERVER = 256, PORT, NFC_PORT, USER, PASSWORD, COOKIE, THUMBPRINT, VM, SNAPSHOT, TRANSPORTS, COMPRESSION, CONFIG };

static bool take_option(struct options *o, int c)
{
    switch (c) {
    case 'q': return number(optarg, 1, 1024, &o->depth);
    case 's': return number(optarg, 1, 65536, &o->sectors) && (o->sectors *= 2);
    case 'a': o->all = true; break;
    case 'A': o->areas = optarg; break;
    case 'i': o->info_only = true; break;
    case 'V': o->verify = optarg; break;
    case 'n': o->quiet = true; break;
    case 'v': verbose = true; break;
    case SERVER: o->server = optarg; break;
    case PORT: return number(optarg, 1, 65535, &o->port);
    case NFC_PORT: return number(optarg, 1, 65535, &o->nfc_port);
    case USER: o->user = optarg; break;
    case PASSWORD: o->password_file = optarg; break;
    case COOKIE: o->cookie_file = optarg; break;
    case THUMBPRINT: o->thumbprint = optarg; break;
    case VM: o->vm = optarg; break;
    case SNAPSHOT: o->snapshot = optarg; break;
    case TRANSPORTS: o->transports = optarg; break;
    case COMPRESSION: return compression(optarg, &o->compression);
    case CONFIG: o->config = optarg; break;
    default: return false;
    }
    return true;
}

static const char *contradiction(const struct options *o)
{
    if (!o->server && (o->user || o->cookie_file || o->vm || o->snapshot || o->port || o->nfc_port))
        return "these options belong to --server";
    if (o->vm && !o->user && !o->cookie_file)
        return "--vm needs --user or --cookie-file";
    if (o->snapshot && !o->vm)
        return "--snapshot needs --vm";
    if (o->areas && !o->output && !o->info_only)
        return "--areas needs the OUTPUT that it brings up to date";
    return NULL;
}

int main(int argc, char **argv)
{
    static const struct option names[] = {
        { "depth", 1, NULL, 'q' },          { "size", 1, NULL, 's' },
        { "all", 0, NULL, 'a' },            { "areas", 1, NULL, 'A' },
        { "info", 0, NULL, 'i' },           { "verify", 1, NULL, 'V' },
        { "no-progress", 0, NULL, 'n' },    { "verbose", 0, NULL, 'v' },
        { "server", 1, NULL, SERVER },      { "port", 1, NULL, PORT },
        { "nfc-port", 1, NULL, NFC_PORT },  { "user", 1, NULL, USER },
        { "thumbprint", 1, NULL, THUMBPRINT }, { "password-file", 1, NULL, PASSWORD },
        { "vm", 1, NULL, VM },              { "cookie-file", 1, NULL, COOKIE },
        { "snapshot", 1, NULL, SNAPSHOT },  { "transports", 1, NULL, TRANSPORTS },
        { "config", 1, NULL, CONFIG },      { "compression", 1, NULL, COMPRESSION },
        { "help", 0, NULL, 'h' },           { NULL, 0, NULL, 0 },
    };
    struct options o;
    const char *wrong;
    bool good = true;
    int c;

    memset(&o, 0, sizeof o);
    o.depth = 8;
    o.sectors = 2048;
    while (good && (c = getopt_long(argc, argv, "q:s:aA:iV:nvh", names, NULL)) != -1) {
        if (c == 'h')
            return usage(stdout), 0;
        good = take_option(&o, c);
    }
    if (!good || argc - optind < 1 || argc - optind > 2)
        return usage(stderr), 2;
    o.disk = argv[optind];
    o.output = argv[optind + 1];
    wrong = contradiction(&o);
    if (wrong)
        return fprintf(stderr, "backup: %s\n", wrong), 2;
    catch_signals();
    return with_library(&o);
}
