// Tells everything the library knows about a disk: size, geometry, chain, metadata, and how much of it holds data.
//
//   c++ -std=c++17 -Wall -Wextra inspect.cpp -I../include -L../lib64 -lvixDiskLib -o inspect
//   ./inspect DISK.vmdk
//
// The part worth copying is the first half: small owners for what the library hands out, so that nothing leaks and
// nothing is released twice whatever throws. Licence: Apache-2.0 OR MIT, like the library.
#include <algorithm>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <iomanip>
#include <iostream>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "vixDiskLib.h"

namespace vix {

// The text of an error code; the library owns the string, so it is copied and given back.
inline std::string text_of(VixError err)
{
    std::unique_ptr<char, decltype(&VixDiskLib_FreeErrorText)> text{VixDiskLib_GetErrorText(err, nullptr),
                                                                    &VixDiskLib_FreeErrorText};
    return text ? text.get() : "unknown";
}

class Error : public std::runtime_error {
public:
    Error(const std::string &what, VixError err)
        : std::runtime_error(what + ": error " + std::to_string(VIX_ERROR_CODE(err)) + " (" + text_of(err) + ")"), code(err)
    {
    }
    VixError code;
};

inline void check(const char *what, VixError err)
{
    if (VIX_FAILED(err))
        throw Error(what, err);
}

// The library is on while one of these lives.
class Library {
public:
    Library() { check("InitEx", VixDiskLib_InitEx(7, 0, quiet, loud, loud, nullptr, nullptr)); }
    ~Library() { VixDiskLib_Exit(); }
    Library(const Library &) = delete;
    Library &operator=(const Library &) = delete;

private:
    static void quiet(const char *, va_list) {}
    static void loud(const char *fmt, va_list args) { std::vfprintf(stderr, fmt, args); }
};

// A connection for local disks.
class Connection {
public:
    Connection() { check("Connect", VixDiskLib_Connect(nullptr, &connection)); }
    ~Connection() { VixDiskLib_Disconnect(connection); }
    Connection(const Connection &) = delete;
    Connection &operator=(const Connection &) = delete;
    VixDiskLibConnection get() const { return connection; }

private:
    VixDiskLibConnection connection = nullptr;
};

using Info = std::unique_ptr<VixDiskLibInfo, decltype(&VixDiskLib_FreeInfo)>;

// An open disk.
class Disk {
public:
    Disk(const Connection &connection, const std::string &path, std::uint32_t flags)
    {
        check(path.c_str(), VixDiskLib_Open(connection.get(), path.c_str(), flags, &handle));
    }
    ~Disk() { VixDiskLib_Close(handle); }
    Disk(const Disk &) = delete;
    Disk &operator=(const Disk &) = delete;

    Info info() const
    {
        VixDiskLibInfo *raw = nullptr;
        check("GetInfo", VixDiskLib_GetInfo(handle, &raw));
        return {raw, &VixDiskLib_FreeInfo};
    }

    std::string transport() const { return VixDiskLib_GetTransportMode(handle); }

    // The names in the disk's data base. The first call asks for the size, NULs included.
    std::vector<std::string> keys() const
    {
        std::size_t size = 0;
        VixError err = VixDiskLib_GetMetadataKeys(handle, nullptr, 0, &size);
        if (err != VIX_E_BUFFER_TOOSMALL)
            check("GetMetadataKeys", err);
        std::vector<char> buf(std::max<std::size_t>(size, 1));
        check("GetMetadataKeys", VixDiskLib_GetMetadataKeys(handle, buf.data(), buf.size(), nullptr));
        std::vector<std::string> names;
        for (const char *p = buf.data(); *p; p += names.back().size() + 1)
            names.emplace_back(p);
        return names;
    }

    std::string metadata(const std::string &key) const
    {
        std::size_t size = 0;
        VixError err = VixDiskLib_ReadMetadata(handle, key.c_str(), nullptr, 0, &size);
        if (err != VIX_E_BUFFER_TOOSMALL)
            check(key.c_str(), err);
        std::vector<char> buf(std::max<std::size_t>(size, 1));
        check(key.c_str(), VixDiskLib_ReadMetadata(handle, key.c_str(), buf.data(), buf.size(), nullptr));
        return buf.data();
    }

    // Calls `each(offset, length)`, in sectors, for every allocated range of the whole chunks of the disk.
    template <typename Each> void allocated(std::uint64_t capacity, Each each) const
    {
        constexpr std::uint64_t chunk = VIXDISKLIB_MIN_CHUNK_SIZE, step = chunk * VIXDISKLIB_MAX_CHUNK_NUMBER;
        const std::uint64_t whole = capacity / chunk * chunk;
        for (std::uint64_t at = 0; at < whole; at += step) {
            VixDiskLibBlockList *raw = nullptr;
            check("QueryAllocatedBlocks",
                  VixDiskLib_QueryAllocatedBlocks(handle, at, std::min(step, whole - at), chunk, &raw));
            std::unique_ptr<VixDiskLibBlockList, decltype(&VixDiskLib_FreeBlockList)> list{raw, &VixDiskLib_FreeBlockList};
            for (std::uint32_t i = 0; i < list->numBlocks; i++)
                each(list->blocks[i].offset, list->blocks[i].length);
        }
    }

private:
    VixDiskLibHandle handle = nullptr;
};

} // namespace vix

namespace {

const char *name_of(VixDiskLibAdapterType type)
{
    switch (static_cast<int>(type)) {
    case VIXDISKLIB_ADAPTER_IDE: return "ide";
    case VIXDISKLIB_ADAPTER_SCSI_BUSLOGIC: return "buslogic";
    case VIXDISKLIB_ADAPTER_SCSI_LSILOGIC: return "lsilogic";
    default: return "unknown";
    }
}

std::ostream &row(const char *name)
{
    return std::cout << std::left << std::setw(16) << name;
}

std::ostream &operator<<(std::ostream &out, const VixDiskLibGeometry &g)
{
    return out << g.cylinders << " cylinders, " << g.heads << " heads, " << g.sectors << " sectors";
}

void print_info(const vix::Disk &disk, const VixDiskLibInfo &info)
{
    row("capacity") << info.capacity << " sectors, " << std::fixed << std::setprecision(1)
                    << static_cast<double>(info.capacity) / 2048 << " MiB\n";
    row("sector sizes") << info.logicalSectorSize << " logical, " << info.physicalSectorSize << " physical\n";
    row("adapter") << name_of(info.adapterType) << '\n';
    row("geometry") << info.physGeo << '\n';
    if (info.biosGeo.cylinders)
        row("BIOS geometry") << info.biosGeo << '\n';
    row("links") << info.numLinks << '\n';
    row("parent") << (info.parentFileNameHint ? info.parentFileNameHint : "none") << '\n';
    row("uuid") << (info.uuid ? info.uuid : "none") << '\n';
    row("transport") << disk.transport() << '\n';
}

void print_map(const vix::Disk &disk, std::uint64_t capacity)
{
    std::uint64_t sectors = 0, ranges = 0, largest = 0;
    std::optional<std::uint64_t> first;
    std::uint64_t end = 0;
    disk.allocated(capacity, [&](std::uint64_t offset, std::uint64_t length) {
        sectors += length;
        ranges++;
        largest = std::max(largest, length);
        first = first.value_or(offset);
        end = offset + length;
    });
    row("allocated") << sectors << " sectors in " << ranges << " ranges, the largest of " << largest << '\n';
    if (first)
        row("") << "between sector " << *first << " and sector " << end << '\n';
}

} // namespace

int main(int argc, char **argv)
{
    if (argc != 2) {
        std::cerr << "usage: inspect DISK.vmdk\n";
        return 2;
    }
    try {
        const vix::Library library;
        const vix::Connection connection;
        const vix::Disk disk(connection, argv[1], VIXDISKLIB_FLAG_OPEN_READ_ONLY);
        const vix::Info info = disk.info();
        print_info(disk, *info);
        print_map(disk, info->capacity);
        for (const std::string &key : disk.keys())
            row("metadata") << key << " = " << disk.metadata(key) << '\n';
        return 0;
    } catch (const std::exception &e) {
        std::cerr << "inspect: " << e.what() << '\n';
        return 1;
    }
}
