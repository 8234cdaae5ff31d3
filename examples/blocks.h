/*
 * Which sectors backup.c reads: those that are allocated, or those that a list of changed areas names.
 * Licence: Apache-2.0 OR MIT, like the library.
 */
#ifndef EXAMPLES_BLOCKS_H
#define EXAMPLES_BLOCKS_H

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "say.h"
#include "vixDiskLib.h"

struct map {
    VixDiskLibBlock *blocks; /* ascending, disjoint; between them are zeros, or what has not changed */
    size_t count, room;
    uint64_t sectors;
};

static int map_push(struct map *m, uint64_t offset, uint64_t length)
{
    if (m->count == m->room) {
        size_t room = m->room ? 2 * m->room : 1024;
        VixDiskLibBlock *more = realloc(m->blocks, room * sizeof *more);
        if (!more)
            return failed("the list of blocks");
        m->blocks = more;
        m->room = room;
    }
    m->blocks[m->count].offset = offset;
    m->blocks[m->count].length = length;
    m->count++;
    m->sectors += length;
    return 0;
}

static int map_add(struct map *m, uint64_t offset, uint64_t length)
{
    VixDiskLibBlock *last = m->count ? &m->blocks[m->count - 1] : NULL;

    if (!last || last->offset + last->length != offset)
        return map_push(m, offset, length);
    last->length += length;
    m->sectors += length;
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

/* ---- The same out of a file: changed areas ------------------------------------------------------------------------ */

static int by_offset(const void *a, const void *b)
{
    uint64_t x = ((const VixDiskLibBlock *)a)->offset, y = ((const VixDiskLibBlock *)b)->offset;
    return (x > y) - (x < y);
}

/* Puts the blocks in order, and makes one of those that touch or overlap. */
static void map_sort(struct map *m)
{
    size_t from, to = 0;

    if (m->count)
        qsort(m->blocks, m->count, sizeof *m->blocks, by_offset);
    m->sectors = 0;
    for (from = 0; from < m->count; from++) {
        VixDiskLibBlock b = m->blocks[from], *last = to ? &m->blocks[to - 1] : NULL;
        if (!last || last->offset + last->length < b.offset)
            m->blocks[to++] = b;
        else if (b.offset + b.length > last->offset + last->length)
            last->length = b.offset + b.length - last->offset;
    }
    m->count = to;
    for (to = 0; to < m->count; to++)
        m->sectors += m->blocks[to].length;
}

/* "start length", in bytes: the sectors that these touch. */
static int area_line(const char *text, uint64_t capacity, struct map *m)
{
    uint64_t start, length, end = capacity * VIXDISKLIB_SECTOR_SIZE, first;
    int used = 0;

    if (strchr(text, '-') || sscanf(text, "%" SCNu64 " %" SCNu64 " %n", &start, &length, &used) != 2 || text[used])
        return fprintf(stderr, "backup: not a start and a length in bytes: %s\n", text), 1;
    if (start > end || length > end - start)
        return fprintf(stderr, "backup: an area of another disk, past the end of this one: %s\n", text), 1;
    first = start / VIXDISKLIB_SECTOR_SIZE;
    end = (start + length + VIXDISKLIB_SECTOR_SIZE - 1) / VIXDISKLIB_SECTOR_SIZE;
    return length ? map_push(m, first, end - first) : 0;
}

static int map_areas(const char *path, uint64_t capacity, struct map *m)
{
    FILE *f = strcmp(path, "-") ? fopen(path, "r") : stdin;
    char line[256];
    int bad = 0;

    if (!f)
        return failed(path);
    while (!bad && fgets(line, sizeof line, f)) {
        line[strcspn(line, "\r\n")] = 0;
        if (*line && *line != '#')
            bad = area_line(line, capacity, m);
    }
    if (!bad && ferror(f))
        bad = failed(path);
    if (f != stdin)
        fclose(f);
    map_sort(m);
    return bad;
}

#endif
