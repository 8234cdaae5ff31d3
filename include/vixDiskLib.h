/*
 * Access to VMware virtual disks.
 *
 * Order of calls: VixDiskLib_InitEx, VixDiskLib_Connect or VixDiskLib_ConnectEx, VixDiskLib_Open, work on the disk,
 * VixDiskLib_Close, VixDiskLib_Disconnect, VixDiskLib_Exit. Every function may be called from every thread. A function that
 * returns VixError returns VIX_OK for success; VixDiskLib_GetErrorText has words for the rest. What a function hands out is
 * freed by the function named next to it, or by free().
 */


#ifndef _VIXDISKLIB_H_
#define _VIXDISKLIB_H_

/* Generated from src/abi by build.rs: change it there. */

#include <stdlib.h>
#include <stdarg.h>
#include "vm_basic_types.h"

#ifdef __cplusplus
extern "C" {
#endif

#ifndef _VIX_H_
/** A code of the list below in its low 16 bits; the rest is 0. */
typedef uint64 VixError;

/** The code of an error. */
#define VIX_ERROR_CODE(err) ((err) & 0xFFFF)
/** True for VIX_OK only. */
#define VIX_SUCCEEDED(err) (VIX_OK == (err))
/** True for everything but VIX_OK, VIX_ASYNC included. */
#define VIX_FAILED(err) (VIX_OK != (err))

/** All codes. */
enum {
    /** The operation was successful. */
    VIX_OK = 0,
    /** Unknown error. */
    VIX_E_FAIL = 1,
    /** Memory allocation failed: out of memory. */
    VIX_E_OUT_OF_MEMORY = 2,
    /** One of the parameters is invalid. */
    VIX_E_INVALID_ARG = 3,
    /** A file was not found. */
    VIX_E_FILE_NOT_FOUND = 4,
    /** The object is busy with another call. */
    VIX_E_OBJECT_IS_BUSY = 5,
    /** The operation is not supported. */
    VIX_E_NOT_SUPPORTED = 6,
    /** A file access error occurred on the host or guest. */
    VIX_E_FILE_ERROR = 7,
    /** The write failed because no space is left on the device. */
    VIX_E_DISK_FULL = 8,
    /** The file is of the wrong type. */
    VIX_E_INCORRECT_FILE_TYPE = 9,
    /** The operation was cancelled. */
    VIX_E_CANCELLED = 10,
    /** The file is write protected. */
    VIX_E_FILE_READ_ONLY = 11,
    /** The file exists already. */
    VIX_E_FILE_ALREADY_EXISTS = 12,
    /** You do not have access rights to this file. */
    VIX_E_FILE_ACCESS_ERROR = 13,
    /** The file system cannot hold files this large. */
    VIX_E_REQUIRES_LARGE_FILES = 14,
    /** The file is in use and locked. */
    VIX_E_FILE_ALREADY_LOCKED = 15,
    /** Server-side error, contact with the virtual machine may be lost. */
    VIX_E_VMDB = 16,
    /** The operation is not available for remote objects. */
    VIX_E_NOT_SUPPORTED_ON_REMOTE_OBJECT = 20,
    /** The file is too large for its file system. */
    VIX_E_FILE_TOO_BIG = 21,
    /** The file name is not valid. */
    VIX_E_FILE_NAME_INVALID = 22,
    /** Something of that name exists already. */
    VIX_E_ALREADY_EXISTS = 23,
    /** The buffer is too small. */
    VIX_E_BUFFER_TOOSMALL = 24,
    /** The object does not exist. */
    VIX_E_OBJECT_NOT_FOUND = 25,
    /** There is no connection to the host. */
    VIX_E_HOST_NOT_CONNECTED = 26,
    /** A string has the wrong encoding. */
    VIX_E_INVALID_UTF8_STRING = 27,
    /** The job is not finished. */
    VIX_E_UNFINISHED_JOB = 29,
    /** A decryption key is needed. */
    VIX_E_NEED_KEY = 30,
    /** Operation is under way already. */
    VIX_E_OPERATION_ALREADY_IN_PROGRESS = 31,
    /** The licence does not allow this. */
    VIX_E_LICENSE = 32,
    /** The VM's host is disconnected. */
    VIX_E_VM_HOST_DISCONNECTED = 34,
    /** Authentication for an encrypted VM failed. */
    VIX_E_AUTHENTICATION_FAIL = 35,
    /** Connection to the host was lost. */
    VIX_E_HOST_CONNECTION_LOST = 36,
    /** Name is used by another object. */
    VIX_E_DUPLICATE_NAME = 41,
    /** Argument too large. */
    VIX_E_ARGUMENT_TOO_BIG = 44,
    /** The handle is not valid. */
    VIX_E_INVALID_HANDLE = 1000,
    /** Not possible with this kind of handle. */
    VIX_E_NOT_SUPPORTED_ON_HANDLE_TYPE = 1001,
    /** Too many open handles. */
    VIX_E_TOO_MANY_HANDLES = 1002,
    /** The file is not valid: a required section is missing. */
    VIX_E_NOT_FOUND = 2000,
    /** The file is not valid: it holds an object of the wrong type. */
    VIX_E_TYPE_MISMATCH = 2001,
    /** The file is not valid and probably corrupt. */
    VIX_E_INVALID_XML = 2002,
    /** Timed out waiting for guest tools. */
    VIX_E_TIMEOUT_WAITING_FOR_TOOLS = 3000,
    /** Command unknown to the VM. */
    VIX_E_UNRECOGNIZED_COMMAND = 3001,
    /** Not supported for this guest OS. */
    VIX_E_OP_NOT_SUPPORTED_ON_GUEST = 3003,
    /** Program could not be run in the guest. */
    VIX_E_PROGRAM_NOT_STARTED = 3004,
    /** A read-only VM cannot be powered on. */
    VIX_E_CANNOT_START_READ_ONLY_VM = 3005,
    /** VM must be powered on. */
    VIX_E_VM_NOT_RUNNING = 3006,
    /** VM must not be powered on. */
    VIX_E_VM_IS_RUNNING = 3007,
    /** Cannot connect to the VM. */
    VIX_E_CANNOT_CONNECT_TO_VM = 3008,
    /** Scripts cannot be run. */
    VIX_E_POWEROP_SCRIPTS_NOT_AVAILABLE = 3009,
    /** No guest OS in the VM. */
    VIX_E_NO_GUEST_OS_INSTALLED = 3010,
    /** Host lacks memory for the VM. */
    VIX_E_VM_INSUFFICIENT_HOST_MEMORY = 3011,
    /** Suspend failed. */
    VIX_E_SUSPEND_ERROR = 3012,
    /** Host has too few CPUs for the VM. */
    VIX_E_VM_NOT_ENOUGH_CPUS = 3013,
    /** Insufficient permission on the host, or the login was refused. */
    VIX_E_HOST_USER_PERMISSIONS = 3014,
    /** Guest login failed or lacks permission. */
    VIX_E_GUEST_USER_PERMISSIONS = 3015,
    /** Guest tools are not running. */
    VIX_E_TOOLS_NOT_RUNNING = 3016,
    /** Guest operations are forbidden. */
    VIX_E_GUEST_OPERATIONS_PROHIBITED = 3017,
    /** Anonymous guest operations are forbidden. */
    VIX_E_ANON_GUEST_OPERATIONS_PROHIBITED = 3018,
    /** Guest operations as administrator are forbidden. */
    VIX_E_ROOT_GUEST_OPERATIONS_PROHIBITED = 3019,
    /** No account configured for anonymous guest work. */
    VIX_E_MISSING_ANON_GUEST_ACCOUNT = 3023,
    /** Guest cannot authenticate users. */
    VIX_E_CANNOT_AUTHENTICATE_WITH_GUEST = 3024,
    /** Command unknown to guest tools. */
    VIX_E_UNRECOGNIZED_COMMAND_IN_GUEST = 3025,
    /** Forbidden for guest console users. */
    VIX_E_CONSOLE_GUEST_OPERATIONS_PROHIBITED = 3026,
    /** Console user only. */
    VIX_E_MUST_BE_CONSOLE_USER = 3027,
    /** VM waits for an answer from a user. */
    VIX_E_VMX_MSG_DIALOG_AND_NO_UI = 3028,
    /** Not allowed while the virtual machine is being recorded. */
    VIX_E_NOT_ALLOWED_DURING_VM_RECORDING = 3029,
    /** Not allowed while the virtual machine is being replayed. */
    VIX_E_NOT_ALLOWED_DURING_VM_REPLAY = 3030,
    /** Not for this kind of login. */
    VIX_E_OPERATION_NOT_ALLOWED_FOR_LOGIN_TYPE = 3031,
    /** Kind of login not supported. */
    VIX_E_LOGIN_TYPE_NOT_SUPPORTED = 3032,
    /** Guest refuses empty passwords. */
    VIX_E_EMPTY_PASSWORD_NOT_ALLOWED_IN_GUEST = 3033,
    /** User must be logged in interactively. */
    VIX_E_INTERACTIVE_SESSION_NOT_PRESENT = 3034,
    /** Other user is logged in interactively. */
    VIX_E_INTERACTIVE_SESSION_USER_MISMATCH = 3035,
    /** The virtual machine cannot be replayed. */
    VIX_E_UNABLE_TO_REPLAY_VM = 3039,
    /** VM could not start. */
    VIX_E_CANNOT_POWER_ON_VM = 3041,
    /** No display server. */
    VIX_E_NO_DISPLAY_SERVER = 3043,
    /** The virtual machine is not recording. */
    VIX_E_VM_NOT_RECORDING = 3044,
    /** The virtual machine is not replaying. */
    VIX_E_VM_NOT_REPLAYING = 3045,
    /** Too many authentication sessions. */
    VIX_E_TOO_MANY_LOGONS = 3046,
    /** No such authentication session. */
    VIX_E_INVALID_AUTHENTICATION_SESSION = 3047,
    /** VM not found. */
    VIX_E_VM_NOT_FOUND = 4000,
    /** Not supported for this VM version. */
    VIX_E_NOT_SUPPORTED_FOR_VM_VERSION = 4001,
    /** VM configuration file unreadable. */
    VIX_E_CANNOT_READ_VM_CONFIG = 4002,
    /** Not possible on a template. */
    VIX_E_TEMPLATE_VM = 4003,
    /** VM is loaded already. */
    VIX_E_VM_ALREADY_LOADED = 4004,
    /** VM is up to date already. */
    VIX_E_VM_ALREADY_UP_TO_DATE = 4006,
    /** Guest OS not supported by target host. */
    VIX_E_VM_UNSUPPORTED_GUEST = 4011,
    /** Unknown property. */
    VIX_E_UNRECOGNIZED_PROPERTY = 6000,
    /** Property value invalid. */
    VIX_E_INVALID_PROPERTY_VALUE = 6001,
    /** Property is read-only. */
    VIX_E_READ_ONLY_PROPERTY = 6002,
    /** Property missing. */
    VIX_E_MISSING_REQUIRED_PROPERTY = 6003,
    /** Serialised object invalid. */
    VIX_E_INVALID_SERIALIZED_DATA = 6004,
    /** Property type mismatch. */
    VIX_E_PROPERTY_TYPE_MISMATCH = 6005,
    /** Index outside the result set. */
    VIX_E_BAD_VM_INDEX = 8000,
    /** Message header bad. */
    VIX_E_INVALID_MESSAGE_HEADER = 10000,
    /** Message body bad. */
    VIX_E_INVALID_MESSAGE_BODY = 10001,
    /** Snapshot error. */
    VIX_E_SNAPSHOT_INVAL = 13000,
    /** Snapshot file cannot be opened. */
    VIX_E_SNAPSHOT_DUMPER = 13001,
    /** Disk error (snapshot). */
    VIX_E_SNAPSHOT_DISKLIB = 13002,
    /** Snapshot does not exist. */
    VIX_E_SNAPSHOT_NOTFOUND = 13003,
    /** Snapshot exists already. */
    VIX_E_SNAPSHOT_EXISTS = 13004,
    /** VM does not allow snapshots. */
    VIX_E_SNAPSHOT_VERSION = 13005,
    /** Insufficient permission (snapshot). */
    VIX_E_SNAPSHOT_NOPERM = 13006,
    /** Error in configuration file. */
    VIX_E_SNAPSHOT_CONFIG = 13007,
    /** Nothing changed since last snapshot. */
    VIX_E_SNAPSHOT_NOCHANGE = 13008,
    /** Snapshot file cannot be saved. */
    VIX_E_SNAPSHOT_CHECKPOINT = 13009,
    /** Snapshot operation is under way. */
    VIX_E_SNAPSHOT_LOCKED = 13010,
    /** Snapshot files inconsistent. */
    VIX_E_SNAPSHOT_INCONSISTENT = 13011,
    /** File name too long. */
    VIX_E_SNAPSHOT_NAMETOOLONG = 13012,
    /** Not all metadata files can be snapshotted. */
    VIX_E_SNAPSHOT_VIXFILE = 13013,
    /** One or more disks busy. */
    VIX_E_SNAPSHOT_DISKLOCKED = 13014,
    /** Disk is used more than once. */
    VIX_E_SNAPSHOT_DUPLICATEDDISK = 13015,
    /** Independent disk prevents snapshot. */
    VIX_E_SNAPSHOT_INDEPENDENTDISK = 13016,
    /** Snapshot name ambiguous. */
    VIX_E_SNAPSHOT_NONUNIQUE_NAME = 13017,
    /** Independent disk prevents memory snapshot. */
    VIX_E_SNAPSHOT_MEMORY_ON_INDEPENDENT_DISK = 13018,
    /** Too many snapshots. */
    VIX_E_SNAPSHOT_MAXSNAPSHOTS = 13019,
    /** Free space under configured minimum. */
    VIX_E_SNAPSHOT_MIN_FREE_SPACE = 13020,
    /** Snapshot tree too deep. */
    VIX_E_SNAPSHOT_HIERARCHY_TOODEEP = 13021,
    /** Record and replay prevents the suspension. */
    VIX_E_SNAPSHOT_RRSUSPEND = 13022,
    /** Snapshot cannot be reverted to. */
    VIX_E_SNAPSHOT_NOT_REVERTABLE = 13024,
    /** Not a valid physical disk device. */
    VIX_E_HOST_DISK_INVALID_VALUE = 14003,
    /** Sector size check failed. */
    VIX_E_HOST_DISK_SECTORSIZE = 14004,
    /** Read past end of file. */
    VIX_E_HOST_FILE_ERROR_EOF = 14005,
    /** Protocol error (NBD/NFC handshake). */
    VIX_E_HOST_NETBLKDEV_HANDSHAKE = 14006,
    /** A socket could not be created. */
    VIX_E_HOST_SOCKET_CREATION_ERROR = 14007,
    /** The server could not be contacted. */
    VIX_E_HOST_SERVER_NOT_FOUND = 14008,
    /** The server refused connection. */
    VIX_E_HOST_NETWORK_CONN_REFUSED = 14009,
    /** A communication error occurred. */
    VIX_E_HOST_TCP_SOCKET_ERROR = 14010,
    /** The connection was lost. */
    VIX_E_HOST_TCP_CONN_LOST = 14011,
    /** The hash file of the network block device has a volume error. */
    VIX_E_HOST_NBD_HASHFILE_VOLUME = 14012,
    /** The hash file of the network block device could not be set up. */
    VIX_E_HOST_NBD_HASHFILE_INIT = 14013,
    /** The server is shutting down. */
    VIX_E_HOST_SERVER_SHUTDOWN = 14014,
    /** The server is not available. */
    VIX_E_HOST_SERVER_NOT_AVAILABLE = 14015,
    /** A parameter is invalid (disk library). */
    VIX_E_DISK_INVAL = 16000,
    /** The disk library is not initialised. */
    VIX_E_DISK_NOINIT = 16001,
    /** Disk must be open for I/O. */
    VIX_E_DISK_NOIO = 16002,
    /** Not possible on a partial chain, open the parent. */
    VIX_E_DISK_PARTIALCHAIN = 16003,
    /** Disk needs repair. */
    VIX_E_DISK_NEEDSREPAIR = 16006,
    /** The sectors asked for lie outside the disk. */
    VIX_E_DISK_OUTOFRANGE = 16007,
    /** The parent changed since the child was made (content ID mismatch). */
    VIX_E_DISK_CID_MISMATCH = 16008,
    /** Cannot shrink, not the parent disk. */
    VIX_E_DISK_CANTSHRINK = 16009,
    /** Partition table of physical disk changed. */
    VIX_E_DISK_PARTMISMATCH = 16010,
    /** Disk version newer than supported. */
    VIX_E_DISK_UNSUPPORTEDDISKVERSION = 16011,
    /** The parent disk could not be opened. */
    VIX_E_DISK_OPENPARENT = 16012,
    /** Feature not supported by this version. */
    VIX_E_DISK_NOTSUPPORTED = 16013,
    /** One or more keys not given. */
    VIX_E_DISK_NEEDKEY = 16014,
    /** Refuses unencrypted child of encrypted disk. */
    VIX_E_DISK_NOKEYOVERRIDE = 16015,
    /** Disk not encrypted. */
    VIX_E_DISK_NOTENCRYPTED = 16016,
    /** No keys for encryption. */
    VIX_E_DISK_NOKEY = 16017,
    /** Partition table invalid. */
    VIX_E_DISK_INVALIDPARTITIONTABLE = 16018,
    /** Only sparse extents with embedded descriptor can be encrypted. */
    VIX_E_DISK_NOTNORMAL = 16019,
    /** Descriptor not encrypted. */
    VIX_E_DISK_NOTENCDESC = 16020,
    /** File system is not VMFS. */
    VIX_E_DISK_NEEDVMFS = 16022,
    /** Physical disk too large. */
    VIX_E_DISK_RAWTOOBIG = 16024,
    /** Host limit of open files exceeded. */
    VIX_E_DISK_TOOMANYOPENFILES = 16027,
    /** Too many redo levels. */
    VIX_E_DISK_TOOMANYREDO = 16028,
    /** Physical disk too small. */
    VIX_E_DISK_RAWTOOSMALL = 16029,
    /** The chain mixes disks that cannot stand on each other. */
    VIX_E_DISK_INVALIDCHAIN = 16030,
    /** Metadata key not found. */
    VIX_E_DISK_KEY_NOTFOUND = 16052,
    /** A required subsystem did not start. */
    VIX_E_DISK_SUBSYSTEM_INIT_FAIL = 16053,
    /** Connection handle not valid. */
    VIX_E_DISK_INVALID_CONNECTION = 16054,
    /** Disk encoding error. */
    VIX_E_DISK_ENCODING = 16061,
    /** The disk is corrupt beyond repair. */
    VIX_E_DISK_CANTREPAIR = 16062,
    /** The file is not a virtual disk. */
    VIX_E_DISK_INVALIDDISK = 16063,
    /** Host not licensed. */
    VIX_E_DISK_NOLICENSE = 16064,
    /** Device does not exist. */
    VIX_E_DISK_NODEVICE = 16065,
    /** Device type does not allow it. */
    VIX_E_DISK_UNSUPPORTEDDEVICE = 16066,
    /** Parent and child capacity differ. */
    VIX_E_DISK_CAPACITY_MISMATCH = 16067,
    /** Disk type not allowed as parent. */
    VIX_E_DISK_PARENT_NOTALLOWED = 16068,
    /** Attach: both disks are root links. */
    VIX_E_DISK_ATTACH_ROOTLINK = 16069,
    /** Encryption library: unknown algorithm. */
    VIX_E_CRYPTO_UNKNOWN_ALGORITHM = 17000,
    /** Encryption library: wrong buffer size. */
    VIX_E_CRYPTO_BAD_BUFFER_SIZE = 17001,
    /** Encryption library: invalid operation. */
    VIX_E_CRYPTO_INVALID_OPERATION = 17002,
    /** Encryption library: no random device. */
    VIX_E_CRYPTO_RANDOM_DEVICE = 17003,
    /** A password is needed. */
    VIX_E_CRYPTO_NEED_PASSWORD = 17004,
    /** The password is wrong. */
    VIX_E_CRYPTO_BAD_PASSWORD = 17005,
    /** Encryption library: not in the dictionary. */
    VIX_E_CRYPTO_NOT_IN_DICTIONARY = 17006,
    /** Encryption library: no encryption available. */
    VIX_E_CRYPTO_NO_CRYPTO = 17007,
    /** Encryption library: general error. */
    VIX_E_CRYPTO_ERROR = 17008,
    /** Encryption library: wrong format. */
    VIX_E_CRYPTO_BAD_FORMAT = 17009,
    /** Encryption library: locked. */
    VIX_E_CRYPTO_LOCKED = 17010,
    /** Encryption library: nothing there. */
    VIX_E_CRYPTO_EMPTY = 17011,
    /** Encryption library: the key safe cannot be located. */
    VIX_E_CRYPTO_KEYSAFE_LOCATOR = 17012,
    /** No connection to the host could be made. */
    VIX_E_CANNOT_CONNECT_TO_HOST = 18000,
    /** Local hosts only. */
    VIX_E_NOT_FOR_REMOTE_HOST = 18001,
    /** Host name malformed. */
    VIX_E_INVALID_HOSTNAME_SPECIFICATION = 18002,
    /** Screen capture failed. */
    VIX_E_SCREEN_CAPTURE_ERROR = 19000,
    /** Screen capture format unsupported. */
    VIX_E_SCREEN_CAPTURE_BAD_FORMAT = 19001,
    /** Screen capture compression failed. */
    VIX_E_SCREEN_CAPTURE_COMPRESSION_FAIL = 19002,
    /** Screen capture too large. */
    VIX_E_SCREEN_CAPTURE_LARGE_DATA = 19003,
    /** Guest volumes not frozen. */
    VIX_E_GUEST_VOLUMES_NOT_FROZEN = 20000,
    /** Not a file. */
    VIX_E_NOT_A_FILE = 20001,
    /** Not a directory. */
    VIX_E_NOT_A_DIRECTORY = 20002,
    /** No such process. */
    VIX_E_NO_SUCH_PROCESS = 20003,
    /** File name too long. */
    VIX_E_FILE_NAME_TOO_LONG = 20004,
    /** Operation is disabled. */
    VIX_E_OPERATION_DISABLED = 20005,
    /** Guest tools: no installation image. */
    VIX_E_TOOLS_INSTALL_NO_IMAGE = 21000,
    /** Guest tools: the installation image cannot be reached. */
    VIX_E_TOOLS_INSTALL_IMAGE_INACCESIBLE = 21001,
    /** Guest tools: no device for the installation. */
    VIX_E_TOOLS_INSTALL_NO_DEVICE = 21002,
    /** Guest tools: the device for the installation is not connected. */
    VIX_E_TOOLS_INSTALL_DEVICE_NOT_CONNECTED = 21003,
    /** Guest tools: the installation was cancelled. */
    VIX_E_TOOLS_INSTALL_CANCELLED = 21004,
    /** Guest tools: the installation could not start. */
    VIX_E_TOOLS_INSTALL_INIT_FAILED = 21005,
    /** Guest tools: no automatic installation for this guest. */
    VIX_E_TOOLS_INSTALL_AUTO_NOT_SUPPORTED = 21006,
    /** Guest tools: the guest is not ready for the installation. */
    VIX_E_TOOLS_INSTALL_GUEST_NOT_READY = 21007,
    /** Guest tools: the installer's signature is wrong. */
    VIX_E_TOOLS_INSTALL_SIG_CHECK_FAILED = 21008,
    /** Guest tools: the installation failed. */
    VIX_E_TOOLS_INSTALL_ERROR = 21009,
    /** Guest tools: up to date already. */
    VIX_E_TOOLS_INSTALL_ALREADY_UP_TO_DATE = 21010,
    /** Guest tools: an installation is under way. */
    VIX_E_TOOLS_INSTALL_IN_PROGRESS = 21011,
    /** Guest tools: the installation image could not be copied. */
    VIX_E_TOOLS_INSTALL_IMAGE_COPY_FAILED = 21012,
    /** Service provider: Workstation is not installed. */
    VIX_E_WRAPPER_WORKSTATION_NOT_INSTALLED = 22001,
    /** Service provider: the version was not found. */
    VIX_E_WRAPPER_VERSION_NOT_FOUND = 22002,
    /** Service provider: not found. */
    VIX_E_WRAPPER_SERVICEPROVIDER_NOT_FOUND = 22003,
    /** Service provider: Player is not installed. */
    VIX_E_WRAPPER_PLAYER_NOT_INSTALLED = 22004,
    /** Service provider: the runtime is not installed. */
    VIX_E_WRAPPER_RUNTIME_NOT_INSTALLED = 22005,
    /** Service provider: more than one fits. */
    VIX_E_WRAPPER_MULTIPLE_SERVICEPROVIDERS = 22006,
    /** Mounting: mount point not found. */
    VIX_E_MNTAPI_MOUNTPT_NOT_FOUND = 24000,
    /** Mounting: mount point in use. */
    VIX_E_MNTAPI_MOUNTPT_IN_USE = 24001,
    /** Mounting: disk not found. */
    VIX_E_MNTAPI_DISK_NOT_FOUND = 24002,
    /** Mounting: disk not mounted. */
    VIX_E_MNTAPI_DISK_NOT_MOUNTED = 24003,
    /** Mounting: disk is mounted. */
    VIX_E_MNTAPI_DISK_IS_MOUNTED = 24004,
    /** Mounting: not safe to mount (running VM or in snapshot chain). */
    VIX_E_MNTAPI_DISK_NOT_SAFE = 24005,
    /** Mounting: disk cannot be opened. */
    VIX_E_MNTAPI_DISK_CANT_OPEN = 24006,
    /** Mounting: partition table unreadable. */
    VIX_E_MNTAPI_CANT_READ_PARTS = 24007,
    /** Mounting: umount program not found. */
    VIX_E_MNTAPI_UMOUNT_APP_NOT_FOUND = 24008,
    /** Mounting: umount failed. */
    VIX_E_MNTAPI_UMOUNT = 24009,
    /** Mounting: no mountable partition. */
    VIX_E_MNTAPI_NO_MOUNTABLE_PARTITONS = 24010,
    /** Mounting: bad partition number. */
    VIX_E_MNTAPI_PARTITION_RANGE = 24011,
    /** Mounting: insufficient permission. */
    VIX_E_MNTAPI_PERM = 24012,
    /** Mounting: metadata access error. */
    VIX_E_MNTAPI_DICT = 24013,
    /** Mounting: metadata locked. */
    VIX_E_MNTAPI_DICT_LOCKED = 24014,
    /** Mounting: another process works on the mounted disk. */
    VIX_E_MNTAPI_OPEN_HANDLES = 24015,
    /** Mounting: runtime directory cannot be made. */
    VIX_E_MNTAPI_CANT_MAKE_VAR_DIR = 24016,
    /** Mounting: must run setuid root. */
    VIX_E_MNTAPI_NO_ROOT = 24017,
    /** Mounting: loop device failed. */
    VIX_E_MNTAPI_LOOP_FAILED = 24018,
    /** Mounting: fuse daemon failed to start. */
    VIX_E_MNTAPI_DAEMON = 24019,
    /** Mounting: internal error. */
    VIX_E_MNTAPI_INTERNAL = 24020,
    /** Mounting: system call failed. */
    VIX_E_MNTAPI_SYSTEM = 24021,
    /** Mounting: no connection details. */
    VIX_E_MNTAPI_NO_CONNECTION_DETAILS = 24022,
    /** Mounting: product version too low. */
    VIX_E_MNTAPI_INCOMPATIBLE_VERSION = 24300,
    /** Mounting: operating system error. */
    VIX_E_MNTAPI_OS_ERROR = 24301,
    /** Mounting: drive letter in use. */
    VIX_E_MNTAPI_DRIVE_LETTER_IN_USE = 24302,
    /** Mounting: drive letter assigned already. */
    VIX_E_MNTAPI_DRIVE_LETTER_ALREADY_ASSIGNED = 24303,
    /** Mounting: volume not mounted. */
    VIX_E_MNTAPI_VOLUME_NOT_MOUNTED = 24304,
    /** Mounting: volume mounted already. */
    VIX_E_MNTAPI_VOLUME_ALREADY_MOUNTED = 24305,
    /** Mounting: format failed. */
    VIX_E_MNTAPI_FORMAT_FAILURE = 24306,
    /** Mounting: driver not found. */
    VIX_E_MNTAPI_NO_DRIVER = 24307,
    /** Mounting: volume or disk set open already. */
    VIX_E_MNTAPI_ALREADY_OPENED = 24308,
    /** Mounting: item not found. */
    VIX_E_MNTAPI_ITEM_NOT_FOUND = 24309,
    /** Mounting: boot loader not supported. */
    VIX_E_MNTAPI_UNSUPPROTED_BOOT_LOADER = 24310,
    /** Mounting: OS not supported. */
    VIX_E_MNTAPI_UNSUPPROTED_OS = 24311,
    /** Mounting: string conversion failed. */
    VIX_E_MNTAPI_CODECONVERSION = 24312,
    /** Mounting: registry write failed. */
    VIX_E_MNTAPI_REGWRITE_ERROR = 24313,
    /** Mounting: fault tolerant volume unsupported. */
    VIX_E_MNTAPI_UNSUPPORTED_FT_VOLUME = 24314,
    /** Mounting: partition not found. */
    VIX_E_MNTAPI_PARTITION_NOT_FOUND = 24315,
    /** Mounting: put file failed. */
    VIX_E_MNTAPI_PUTFILE_ERROR = 24316,
    /** Mounting: get file failed. */
    VIX_E_MNTAPI_GETFILE_ERROR = 24317,
    /** Mounting: registry key not open. */
    VIX_E_MNTAPI_REG_NOT_OPENED = 24318,
    /** Mounting: registry delete failed. */
    VIX_E_MNTAPI_REGDELKEY_ERROR = 24319,
    /** Mounting: partition table creation failed. */
    VIX_E_MNTAPI_CREATE_PARTITIONTABLE_ERROR = 24320,
    /** Mounting: disk set open failed. */
    VIX_E_MNTAPI_OPEN_FAILURE = 24321,
    /** Mounting: volume write protected. */
    VIX_E_MNTAPI_VOLUME_NOT_WRITABLE = 24322,
    /** The asynchronous request was accepted. */
    VIX_ASYNC = 25000,
    /** Synchronous and asynchronous I/O are mixed on one handle. */
    VIX_E_ASYNC_MIXEDMODE_UNSUPPORTED = 26000,
    /** HTTP: URL protocol unsupported. */
    VIX_E_NET_HTTP_UNSUPPORTED_PROTOCOL = 30001,
    /** HTTP: URL malformed. */
    VIX_E_NET_HTTP_URL_MALFORMAT = 30003,
    /** HTTP: proxy name not resolved. */
    VIX_E_NET_HTTP_COULDNT_RESOLVE_PROXY = 30005,
    /** HTTP: host name not resolved. */
    VIX_E_NET_HTTP_COULDNT_RESOLVE_HOST = 30006,
    /** HTTP: cannot connect to host or proxy. */
    VIX_E_NET_HTTP_COULDNT_CONNECT = 30007,
    /** HTTP status 400 or above. */
    VIX_E_NET_HTTP_HTTP_RETURNED_ERROR = 30022,
    /** HTTP: network operation timed out. */
    VIX_E_NET_HTTP_OPERATION_TIMEDOUT = 30028,
    /** HTTP: TLS handshake failed. */
    VIX_E_NET_HTTP_SSL_CONNECT_ERROR = 30035,
    /** HTTP: too many redirects. */
    VIX_E_NET_HTTP_TOO_MANY_REDIRECTS = 30047,
    /** HTTP: network send/receive failed. */
    VIX_E_NET_HTTP_TRANSFER = 30200,
    /** HTTP: TLS error. */
    VIX_E_NET_HTTP_SSL_SECURITY = 30201,
    /** HTTP error. */
    VIX_E_NET_HTTP_GENERIC = 30202
};
#endif /* _VIX_H_ */

/** A message function: printf format and arguments, normally ending in a newline. */
typedef void (VixDiskLibGenericLogFunc)(const char *fmt, va_list args);
/** A message function with a number in front; no function here takes one. */
typedef void (VixDiskLibGenericLogVFunc)(int routing, const char *fmt, va_list args);

/** A combination of VIXDISKLIB_FLAG_OPEN_*. */
typedef uint32 VIXDISKLIB_OPEN_FLAGS;

#ifdef __cplusplus
}
#endif


/**
 * Bytes in a sector: the unit of every sector argument, also on disks with sectors of 4096 bytes.
 */
#define VIXDISKLIB_SECTOR_SIZE 512

/**
 * Smallest chunk of an allocation query, in sectors.
 */
#define VIXDISKLIB_MIN_CHUNK_SIZE 128

/**
 * Largest documented chunk of an allocation query, in sectors. Larger ones are accepted.
 */
#define VIXDISKLIB_MAX_CHUNK_SIZE 131072

/**
 * Most chunks in one allocation query.
 */
#define VIXDISKLIB_MAX_CHUNK_NUMBER 524288

/**
 * Open without the host's file cache.
 */
#define VIXDISKLIB_FLAG_OPEN_UNBUFFERED (1 << 0)

/**
 * Open only the named link of a chain, without its parents.
 */
#define VIXDISKLIB_FLAG_OPEN_SINGLE_LINK (1 << 1)

/**
 * Open for reading only.
 */
#define VIXDISKLIB_FLAG_OPEN_READ_ONLY (1 << 2)

/**
 * Compress network transfers with zlib. No effect on local disks.
 */
#define VIXDISKLIB_FLAG_OPEN_COMPRESSION_ZLIB (1 << 4)

/**
 * Compress network transfers with FastLZ. No effect on local disks.
 */
#define VIXDISKLIB_FLAG_OPEN_COMPRESSION_FASTLZ (1 << 5)

/**
 * Leave zero blocks out of network transfers. No effect on local disks.
 */
#define VIXDISKLIB_FLAG_OPEN_COMPRESSION_SKIPZ (1 << 6)

/**
 * The bits that belong to compression; at most one of them may be set.
 */
#define VIXDISKLIB_FLAG_OPEN_COMPRESSION_MASK 1008

/**
 * Virtual hardware of Workstation 4.
 */
#define VIXDISKLIB_HWVERSION_WORKSTATION_4 3

/**
 * Virtual hardware of Workstation 5.
 */
#define VIXDISKLIB_HWVERSION_WORKSTATION_5 4

/**
 * Virtual hardware of Workstation 6.
 */
#define VIXDISKLIB_HWVERSION_WORKSTATION_6 6

/**
 * Virtual hardware of ESX 3.0.
 */
#define VIXDISKLIB_HWVERSION_ESX30 4

/**
 * Virtual hardware of ESX 4.x.
 */
#define VIXDISKLIB_HWVERSION_ESX4X 7

/**
 * Virtual hardware of ESXi 5.0.
 */
#define VIXDISKLIB_HWVERSION_ESX50 8

/**
 * Virtual hardware of ESXi 5.1.
 */
#define VIXDISKLIB_HWVERSION_ESX51 9

/**
 * Virtual hardware of ESXi 5.5.
 */
#define VIXDISKLIB_HWVERSION_ESX55 10

/**
 * Virtual hardware of ESXi 6.0.
 */
#define VIXDISKLIB_HWVERSION_ESX60 11

/**
 * Virtual hardware of ESXi 6.5.
 */
#define VIXDISKLIB_HWVERSION_ESX65 13

/**
 * The newest virtual hardware with a name here.
 */
#define VIXDISKLIB_HWVERSION_CURRENT 13

/**
 * Kinds of virtual disks.
 */
typedef enum VixDiskLibDiskType {
    /**
     * One growing file.
     */
    VIXDISKLIB_DISK_MONOLITHIC_SPARSE = 1,
    /**
     * One preallocated file.
     */
    VIXDISKLIB_DISK_MONOLITHIC_FLAT = 2,
    /**
     * Growing files of 2 GB.
     */
    VIXDISKLIB_DISK_SPLIT_SPARSE = 3,
    /**
     * Preallocated files of 2 GB.
     */
    VIXDISKLIB_DISK_SPLIT_FLAT = 4,
    /**
     * ESX, thick.
     */
    VIXDISKLIB_DISK_VMFS_FLAT = 5,
    /**
     * Compressed, written in sequence.
     */
    VIXDISKLIB_DISK_STREAM_OPTIMIZED = 6,
    /**
     * ESX, thin.
     */
    VIXDISKLIB_DISK_VMFS_THIN = 7,
    /**
     * ESX, sparse.
     */
    VIXDISKLIB_DISK_VMFS_SPARSE = 8,
    /**
     * Something else.
     */
    VIXDISKLIB_DISK_UNKNOWN = 256
} VixDiskLibDiskType;

/**
 * Virtual adapters that a disk can be made for.
 */
typedef enum VixDiskLibAdapterType {
    /**
     * IDE.
     */
    VIXDISKLIB_ADAPTER_IDE = 1,
    /**
     * SCSI, BusLogic.
     */
    VIXDISKLIB_ADAPTER_SCSI_BUSLOGIC = 2,
    /**
     * SCSI, LSI Logic.
     */
    VIXDISKLIB_ADAPTER_SCSI_LSILOGIC = 3,
    /**
     * Something else.
     */
    VIXDISKLIB_ADAPTER_UNKNOWN = 256
} VixDiskLibAdapterType;

/**
 * Ways to log in to a server.
 */
typedef enum VixDiskLibCredType {
    /**
     * User name and password.
     */
    VIXDISKLIB_CRED_UID = 1,
    /**
     * The cookie of a session that exists already.
     */
    VIXDISKLIB_CRED_SESSIONID = 2,
    /**
     * A ticket; not supported.
     */
    VIXDISKLIB_CRED_TICKETID = 3,
    /**
     * The login of the Windows user; not supported.
     */
    VIXDISKLIB_CRED_SSPI = 4,
    /**
     * Not said.
     */
    VIXDISKLIB_CRED_UNKNOWN = 256
} VixDiskLibCredType;

/**
 * What the `spec` of connection parameters holds.
 */
typedef enum VixDiskLibSpecType {
    /**
     * Nothing: the disks are those of `vmxSpec`.
     */
    VIXDISKLIB_SPEC_VMX = 0,
    /**
     * A first class disk.
     */
    VIXDISKLIB_SPEC_VSTORAGE_OBJECT = 1,
    /**
     * A folder of a datastore.
     */
    VIXDISKLIB_SPEC_DATASTORE = 2,
    /**
     * Not said.
     */
    VIXDISKLIB_SPEC_UNKNOWN = 256
} VixDiskLibSpecType;

/**
 * Library state next to connection parameters.
 */
typedef struct VixDiskLibConnectParamsState VixDiskLibConnectParamsState;

/**
 * What a connection handle points to. Nothing: handles are numbers that only look like pointers.
 */
typedef struct VixDiskLibConnectionStruct VixDiskLibConnectionStruct;

/**
 * What a disk handle points to. Nothing: handles are numbers that only look like pointers.
 */
typedef struct VixDiskLibHandleStruct VixDiskLibHandleStruct;

/**
 * What a ticket points to; not supported.
 */
typedef struct VixDiskLibTicketIdCreds VixDiskLibTicketIdCreds;

/**
 * Login by user name and password.
 */
typedef struct VixDiskLibUidPasswdCreds {
    /**
     * User.
     */
    char *userName;
    /**
     * Password.
     */
    char *password;
} VixDiskLibUidPasswdCreds;

/**
 * Login by the cookie of an existing session.
 */
typedef struct VixDiskLibSessionIdCreds {
    /**
     * Value of the server's session cookie.
     */
    char *cookie;
    /**
     * User; not needed for the login.
     */
    char *userName;
    /**
     * Key; not needed for the login.
     */
    char *key;
} VixDiskLibSessionIdCreds;

/**
 * One of the ways to log in; `credType` says which.
 */
typedef union VixDiskLibCreds {
    /**
     * For VIXDISKLIB_CRED_UID.
     */
    struct VixDiskLibUidPasswdCreds uid;
    /**
     * For VIXDISKLIB_CRED_SESSIONID.
     */
    struct VixDiskLibSessionIdCreds sessionId;
    /**
     * For VIXDISKLIB_CRED_TICKETID.
     */
    struct VixDiskLibTicketIdCreds *ticketId;
} VixDiskLibCreds;

/**
 * A first class disk.
 */
typedef struct VixDiskLibVStorageObjectSpec {
    /**
     * UUID of the disk.
     */
    char *id;
    /**
     * Managed object id of its datastore.
     */
    char *datastoreMoRef;
    /**
     * UUID of a snapshot of it, or NULL.
     */
    char *ssId;
} VixDiskLibVStorageObjectSpec;

/**
 * A folder of a datastore.
 */
typedef struct VixDiskLibDatastoreSpec {
    /**
     * Managed object id of the datastore.
     */
    char *datastoreMoRef;
    /**
     * Folder that disk paths are relative to.
     */
    char *diskFolder;
} VixDiskLibDatastoreSpec;

/**
 * Which disks the connection is for; `specType` says which member counts.
 */
typedef union VixDiskLibDiskSpec {
    /**
     * For VIXDISKLIB_SPEC_VSTORAGE_OBJECT.
     */
    struct VixDiskLibVStorageObjectSpec vStorageObjSpec;
    /**
     * For VIXDISKLIB_SPEC_DATASTORE.
     */
    struct VixDiskLibDatastoreSpec dsSpec;
} VixDiskLibDiskSpec;

/**
 * Where to connect to. All zero, or NULL in place of a pointer to it, means local disks. Take it from
 * VixDiskLib_AllocateConnectParams: members after `vimApiVer` are looked at only in structures that come from there.
 */
typedef struct VixDiskLibConnectParams {
    /**
     * The virtual machine: "moref=vm-12".
     */
    char *vmxSpec;
    /**
     * Host name or address of vCenter or ESXi; NULL or empty for local disks.
     */
    char *serverName;
    /**
     * Fingerprint of the server's certificate, "AB:CD:...".
     */
    char *thumbPrint;
    /**
     * Ignored.
     */
    long privateUse;
    /**
     * Which member of `creds` counts.
     */
    VixDiskLibCredType credType;
    /**
     * Login.
     */
    union VixDiskLibCreds creds;
    /**
     * Port of the server, 0 for the default.
     */
    uint32 port;
    /**
     * Port for disk traffic, 0 for the default.
     */
    uint32 nfcHostPort;
    /**
     * Not used.
     */
    char *vimApiVer;
    /**
     * The library's own.
     */
    char reserved[8];
    /**
     * The library's own.
     */
    struct VixDiskLibConnectParamsState *state;
    /**
     * Which disks, when there is no `vmxSpec`.
     */
    union VixDiskLibDiskSpec spec;
    /**
     * Which member of `spec` counts.
     */
    VixDiskLibSpecType specType;
} VixDiskLibConnectParams;

/**
 * A connection made by VixDiskLib_Connect or VixDiskLib_ConnectEx.
 */
typedef struct VixDiskLibConnectionStruct *VixDiskLibConnection;

/**
 * Sectors of 512 bytes: a position or a number.
 */
typedef uint64 VixDiskLibSectorType;

/**
 * What a new disk shall be.
 */
typedef struct VixDiskLibCreateParams {
    /**
     * Kind of disk.
     */
    VixDiskLibDiskType diskType;
    /**
     * Adapter it is made for.
     */
    VixDiskLibAdapterType adapterType;
    /**
     * Virtual hardware version, any number.
     */
    uint16 hwVersion;
    /**
     * Size in sectors.
     */
    VixDiskLibSectorType capacity;
    /**
     * 512 or 4096; anything else means 512.
     */
    uint32 logicalSectorSize;
    /**
     * 512 or 4096; anything else means 512.
     */
    uint32 physicalSectorSize;
} VixDiskLibCreateParams;

/**
 * Told how far a long operation is, 0 to 100, on the calling thread. The result is ignored.
 */
typedef Bool (*VixDiskLibProgressFunc)(void *progressData, int percentCompleted);

/**
 * A disk opened by VixDiskLib_Open.
 */
typedef struct VixDiskLibHandleStruct *VixDiskLibHandle;

/**
 * Cylinders, heads and sectors per track.
 */
typedef struct VixDiskLibGeometry {
    /**
     * Cylinders.
     */
    uint32 cylinders;
    /**
     * Heads.
     */
    uint32 heads;
    /**
     * Sectors per track.
     */
    uint32 sectors;
} VixDiskLibGeometry;

/**
 * What a disk says about itself.
 */
typedef struct VixDiskLibInfo {
    /**
     * Geometry that the BIOS shows; zeros when the disk does not say.
     */
    struct VixDiskLibGeometry biosGeo;
    /**
     * Geometry of the disk.
     */
    struct VixDiskLibGeometry physGeo;
    /**
     * Size in sectors.
     */
    VixDiskLibSectorType capacity;
    /**
     * Adapter it was made for.
     */
    VixDiskLibAdapterType adapterType;
    /**
     * Links in the opened chain, 1 for a disk without parent.
     */
    int numLinks;
    /**
     * Name of the parent as the disk has it, or NULL.
     */
    char *parentFileNameHint;
    /**
     * Identity of the disk, or NULL.
     */
    char *uuid;
    /**
     * 512 or 4096.
     */
    uint32 logicalSectorSize;
    /**
     * 512 or 4096.
     */
    uint32 physicalSectorSize;
} VixDiskLibInfo;

/**
 * Told that an asynchronous request is done, on any thread, possibly before the request's call has returned. The buffer
 * and `cbData` are not touched afterwards.
 */
typedef void (*VixDiskLibCompletionCB)(void *cbData, VixError result);

/**
 * A range of sectors.
 */
typedef struct VixDiskLibBlock {
    /**
     * First sector.
     */
    uint64 offset;
    /**
     * Number of sectors.
     */
    uint64 length;
} VixDiskLibBlock;

/**
 * Ranges of sectors, ascending and disjoint.
 */
typedef struct VixDiskLibBlockList {
    /**
     * How many there are; 0 is possible.
     */
    uint32 numBlocks;
    /**
     * The first of them; the others follow.
     */
    struct VixDiskLibBlock blocks[1];
} VixDiskLibBlockList;

#ifdef __cplusplus
extern "C" {
#endif /* __cplusplus */

/**
 * Initialises the library. May be called again: each call needs its own VixDiskLib_Exit, the newest functions and
 * configuration count. Call it after `fork`, not before. No thread is started.
 *
 * `majorVersion` and `minorVersion` say which interface the program was written for; up to 9 is accepted. `log`, `warn` and
 * `panic` receive messages as `printf` format and arguments, on the thread that makes them, and may each be NULL; without
 * `log`, messages go to a file under `/tmp/vmware-<user>` or `tmpDirectory`. `libDir` is not needed. `configFile` names a
 * file of `name = value` lines, or is NULL; it is read before the function returns.
 *
 * Requirements:
 * The functions stay callable until the last VixDiskLib_Exit returns. The strings are terminated or NULL.
 */
VixError VixDiskLib_InitEx(uint32 majorVersion,
                           uint32 minorVersion,
                           VixDiskLibGenericLogFunc* log,
                           VixDiskLibGenericLogFunc* warn,
                           VixDiskLibGenericLogFunc* panic,
                           const char *libDir,
                           const char *configFile);

/**
 * VixDiskLib_InitEx without a configuration file.
 *
 * Requirements:
 * As for VixDiskLib_InitEx.
 */
VixError VixDiskLib_Init(uint32 majorVersion,
                         uint32 minorVersion,
                         VixDiskLibGenericLogFunc* log,
                         VixDiskLibGenericLogFunc* warn,
                         VixDiskLibGenericLogFunc* panic,
                         const char *libDir);

/**
 * Takes one VixDiskLib_InitEx back. The last one closes every disk and connection that is still open, after what was written
 * to them is safe, and ends every thread of the library; no message comes afterwards. Harmless when not initialised.
 */
void VixDiskLib_Exit(void);

/**
 * The transports that disks can be reached by, colon separated, best first. Works at any time; not to be freed.
 */
const char *VixDiskLib_ListTransportModes(void);

/**
 * What a code means, in English. Never NULL unless memory is out; to be freed with VixDiskLib_FreeErrorText. `locale` should
 * be NULL. Works at any time.
 *
 * Requirements:
 * `locale` is not looked at.
 */
char *VixDiskLib_GetErrorText(VixError err,
                              const char *locale);

/**
 * Frees a text of VixDiskLib_GetErrorText. NULL is fine.
 *
 * Requirements:
 * `errorText` is NULL or came from VixDiskLib_GetErrorText and was not freed.
 */
void VixDiskLib_FreeErrorText(char *errorText);

/**
 * Makes a connection. The same as VixDiskLib_ConnectEx for reading and writing, without a snapshot, over the default
 * transports.
 *
 * Requirements:
 * `connectParams` is NULL or a structure of this header with terminated strings; `connection` can be written.
 */
VixError VixDiskLib_Connect(const struct VixDiskLibConnectParams *connectParams,
                            VixDiskLibConnection *connection);

/**
 * Makes a connection. NULL or zeroed `connectParams` mean local disks. All strings are copied before the function returns.
 *
 * A `serverName` of the form `nbd://host[:port]`, `nbds://host[:port]`, `nbd+unix:///?socket=/path` or `nbds+unix:///?socket=/path`
 * is an NBD server. The path given to VixDiskLib_Open is the name of an export there, "" its default. Transport `nbdssl`
 * means TLS, and `nbd` none; a name that begins with `nbds` is never reached without. `thumbPrint` is honoured, and `port` where
 * the name has none; `vmxSpec`, `snapshotRef` and credentials may say anything.
 *
 * Any other `serverName` is a vCenter or an ESXi host: a name or an address, `host:port`, or `https://host[:port]/sdk`. Nothing
 * is sent before the first call that needs it: a wrong server, thumbprint or login shows in VixDiskLib_Open. Connections that
 * log in alike share one session, which ends with the last of them.
 *
 * `snapshotRef` names a snapshot of the virtual machine, NULL or "" none. `transportModes` lists transports in the order in
 * which they are tried, colon separated; NULL or "" means the default. On failure `connection` becomes NULL.
 *
 * Requirements:
 * `connectParams` is NULL or a structure of this header with terminated strings; the other strings are NULL or terminated;
 * `connection` can be written.
 */
VixError VixDiskLib_ConnectEx(const struct VixDiskLibConnectParams *connectParams,
                              Bool readOnly,
                              const char *snapshotRef,
                              const char *transportModes,
                              VixDiskLibConnection *connection);

/**
 * Closes a connection, and the disks that are still open on it.
 *
 * Requirements:
 * Any value may be passed; one that is no open connection gives VIX_E_DISK_INVALID_CONNECTION, NULL gives VIX_E_INVALID_ARG.
 */
VixError VixDiskLib_Disconnect(VixDiskLibConnection connection);

/**
 * Keeps a virtual machine from being moved to another host or datastore by its vCenter while it is backed up, in the name of
 * `identity`, which has at most 50 characters. Call it before the snapshot is made. Nothing to do for local disks and NBD
 * servers.
 *
 * VIX_E_OPERATION_DISABLED: somebody with another identity does that already. VIX_E_NOT_SUPPORTED: the server is a host
 * without a vCenter. VIX_E_INVALID_ARG: no machine is named.
 *
 * Requirements:
 * `connectParams` is NULL or a structure of this header; the strings are terminated.
 */
VixError VixDiskLib_PrepareForAccess(const struct VixDiskLibConnectParams *connectParams,
                                     const char *identity);

/**
 * Takes VixDiskLib_PrepareForAccess back, also what a program that crashed left behind. Needs no connection. Nothing to do for
 * local disks and NBD servers.
 *
 * Requirements:
 * As for VixDiskLib_PrepareForAccess.
 */
VixError VixDiskLib_EndAccess(const struct VixDiskLibConnectParams *connectParams,
                              const char *identity);

/**
 * Removes what crashed programs left behind on servers. None of the transports of this build leaves anything there: both
 * numbers become 0. What a crashed program held with VixDiskLib_PrepareForAccess is released by VixDiskLib_EndAccess.
 *
 * Requirements:
 * `connectParams` is NULL or a structure of this header; the numbers are NULL or can be written.
 */
VixError VixDiskLib_Cleanup(const struct VixDiskLibConnectParams *connectParams,
                            uint32 *numCleanedUp,
                            uint32 *numRemaining);

/**
 * A zeroed structure of connection parameters, NULL when memory is out; to be freed with VixDiskLib_FreeConnectParams.
 * Strings put into it stay the caller's. Works at any time.
 */
struct VixDiskLibConnectParams *VixDiskLib_AllocateConnectParams(void);

/**
 * A copy of what a connection was made with; to be freed with VixDiskLib_FreeConnectParams.
 *
 * Requirements:
 * `connectParams` can be written. Any value may be passed as `connection`.
 */
VixError VixDiskLib_GetConnectParams(VixDiskLibConnection connection,
                                     struct VixDiskLibConnectParams **connectParams);

/**
 * Frees a structure of VixDiskLib_AllocateConnectParams, without the strings the caller put into it, or of
 * VixDiskLib_GetConnectParams, with its strings. NULL is fine, anything else is left alone. Works at any time.
 *
 * Requirements:
 * A structure of this library is freed once and not used afterwards.
 */
void VixDiskLib_FreeConnectParams(struct VixDiskLibConnectParams *connectParams);

/**
 * Makes a local disk that reads as zeros. The file must not exist.
 *
 * Requirements:
 * `path` is terminated, `createParams` is a structure of this header, `progressFunc` is NULL or callable during the call.
 */
VixError VixDiskLib_Create(VixDiskLibConnection connection,
                           const char *path,
                           const struct VixDiskLibCreateParams *createParams,
                           VixDiskLibProgressFunc progressFunc,
                           void *progressCallbackData);

/**
 * Opens a disk with all its parents. `flags` is a combination of VIXDISKLIB_FLAG_OPEN_*. On failure `diskHandle` becomes
 * NULL.
 *
 * Requirements:
 * `path` is terminated, `diskHandle` can be written. Any value may be passed as `connection`.
 */
VixError VixDiskLib_Open(VixDiskLibConnection connection,
                         const char *path,
                         uint32 flags,
                         VixDiskLibHandle *diskHandle);

/**
 * Closes a disk after what is under way on it. The handle is gone even if an error is returned.
 *
 * Requirements:
 * Any value may be passed; one that is no open disk gives VIX_E_INVALID_HANDLE, NULL gives VIX_E_INVALID_ARG.
 */
VixError VixDiskLib_Close(VixDiskLibHandle diskHandle);

/**
 * What a disk says about itself, in a block to be freed with VixDiskLib_FreeInfo. It outlives the handle.
 *
 * Requirements:
 * `info` can be written. Any value may be passed as `diskHandle`.
 */
VixError VixDiskLib_GetInfo(VixDiskLibHandle diskHandle,
                            struct VixDiskLibInfo **info);

/**
 * Frees a block of VixDiskLib_GetInfo. NULL is fine.
 *
 * Requirements:
 * `info` is NULL or came from VixDiskLib_GetInfo and was not freed.
 */
void VixDiskLib_FreeInfo(struct VixDiskLibInfo *info);

/**
 * The transport that a disk is reached by. Not to be freed; "" for what is no open disk.
 *
 * Requirements:
 * Any value may be passed as `diskHandle`.
 */
const char *VixDiskLib_GetTransportMode(VixDiskLibHandle diskHandle);

/**
 * Reads `numSectors` sectors from `startSector` into `readBuffer`, which needs no alignment. Any part outside the disk gives
 * VIX_E_DISK_OUTOFRANGE, and nothing is read.
 *
 * Requirements:
 * `readBuffer` is valid for writes of `numSectors * 512` bytes until the call returns.
 */
VixError VixDiskLib_Read(VixDiskLibHandle diskHandle,
                         VixDiskLibSectorType startSector,
                         VixDiskLibSectorType numSectors,
                         uint8 *readBuffer);

/**
 * Writes `numSectors` sectors from `writeBuffer` at `startSector`. Any part outside the disk gives VIX_E_DISK_OUTOFRANGE, and
 * nothing is written. VixDiskLib_Flush makes it durable.
 *
 * Requirements:
 * `writeBuffer` is valid for reads of `numSectors * 512` bytes until the call returns.
 */
VixError VixDiskLib_Write(VixDiskLibHandle diskHandle,
                          VixDiskLibSectorType startSector,
                          VixDiskLibSectorType numSectors,
                          const uint8 *writeBuffer);

/**
 * Starts a read and returns VIX_ASYNC. `callback` then runs exactly once, on any thread, possibly before the function
 * returns. With any other result the read was refused and `callback` does not run.
 *
 * Requirements:
 * `readBuffer` is valid for writes of `numSectors * 512` bytes, and nobody else touches it, until `callback` runs.
 */
VixError VixDiskLib_ReadAsync(VixDiskLibHandle diskHandle,
                              VixDiskLibSectorType startSector,
                              VixDiskLibSectorType numSectors,
                              uint8 *readBuffer,
                              VixDiskLibCompletionCB callback,
                              void *cbData);

/**
 * Starts a write and returns VIX_ASYNC; see VixDiskLib_ReadAsync.
 *
 * Requirements:
 * `writeBuffer` is valid for reads of `numSectors * 512` bytes, and nobody changes it, until `callback` runs.
 */
VixError VixDiskLib_WriteAsync(VixDiskLibHandle diskHandle,
                               VixDiskLibSectorType startSector,
                               VixDiskLibSectorType numSectors,
                               const uint8 *writeBuffer,
                               VixDiskLibCompletionCB callback,
                               void *cbData);

/**
 * Makes durable what was written. Call VixDiskLib_Wait first for what was written asynchronously.
 *
 * Requirements:
 * Any value may be passed as `diskHandle`.
 */
VixError VixDiskLib_Flush(VixDiskLibHandle diskHandle);

/**
 * Returns when every asynchronous request of the disk is done and its callback has returned. Their results went to the
 * callbacks.
 *
 * Requirements:
 * Any value may be passed as `diskHandle`.
 */
VixError VixDiskLib_Wait(VixDiskLibHandle diskHandle);

/**
 * Lists the sectors that may hold data, in units of `chunkSize` sectors (at least VIXDISKLIB_MIN_CHUNK_SIZE), at most
 * VIXDISKLIB_MAX_CHUNK_NUMBER of them. What is not listed reads as zeros. The range may pass the end of the disk. The list is
 * to be freed with VixDiskLib_FreeBlockList; it may be empty.
 *
 * Requirements:
 * `blockList` can be written. Any value may be passed as `diskHandle`.
 */
VixError VixDiskLib_QueryAllocatedBlocks(VixDiskLibHandle diskHandle,
                                         VixDiskLibSectorType startSector,
                                         VixDiskLibSectorType numSectors,
                                         VixDiskLibSectorType chunkSize,
                                         struct VixDiskLibBlockList **blockList);

/**
 * Frees a list of VixDiskLib_QueryAllocatedBlocks. NULL is fine. Returns VIX_OK.
 *
 * Requirements:
 * `blockList` is NULL or came from VixDiskLib_QueryAllocatedBlocks and was not freed.
 */
VixError VixDiskLib_FreeBlockList(struct VixDiskLibBlockList *blockList);

/**
 * Reads the value of a key. `requiredLen`, if not NULL, becomes the length of the value with its terminator, also when `buf`
 * is NULL or `bufLen` too small, which gives VIX_E_BUFFER_TOOSMALL. A key that does not exist gives
 * VIX_E_DISK_KEY_NOTFOUND.
 *
 * Requirements:
 * `key` is terminated; `buf` is NULL or valid for writes of `bufLen` bytes; `requiredLen` is NULL or can be written.
 */
VixError VixDiskLib_ReadMetadata(VixDiskLibHandle diskHandle,
                                 const char *key,
                                 char *buf,
                                 size_t bufLen,
                                 size_t *requiredLen);

/**
 * Adds a key or replaces its value. A value can be emptied, a key cannot be removed.
 *
 * Requirements:
 * `key` and `val` are terminated.
 */
VixError VixDiskLib_WriteMetadata(VixDiskLibHandle diskHandle, const char *key, const char *val);

/**
 * Lists the keys, each terminated, with one more terminator at the end. `requiredLen`, if not NULL, becomes the length of all
 * that, also when `keys` is NULL or `maxLen` too small, which gives VIX_E_BUFFER_TOOSMALL.
 *
 * Requirements:
 * `keys` is NULL or valid for writes of `maxLen` bytes; `requiredLen` is NULL or can be written.
 */
VixError VixDiskLib_GetMetadataKeys(VixDiskLibHandle diskHandle,
                                    char *keys,
                                    size_t maxLen,
                                    size_t *requiredLen);

/**
 * Makes a disk on top of `diskHandle` that stores only what differs from it. `diskType` is
 * VIXDISKLIB_DISK_MONOLITHIC_SPARSE or VIXDISKLIB_DISK_SPLIT_SPARSE.
 *
 * The parent must not change afterwards: its next write gives it another content id, and the child is refused from then on
 * (VIX_E_DISK_CID_MISMATCH). A compressed disk or a device gives VIX_E_DISK_PARENT_NOTALLOWED.
 *
 * Requirements:
 * `childPath` is terminated, `progressFunc` is NULL or callable during the call.
 */
VixError VixDiskLib_CreateChild(VixDiskLibHandle diskHandle,
                                const char *childPath,
                                VixDiskLibDiskType diskType,
                                VixDiskLibProgressFunc progressFunc,
                                void *progressCallbackData);

/**
 * Deletes a local disk: its descriptor and its extents, not its parents. Children lose their parent.
 *
 * A disk that is open for writing gives VIX_E_FILE_ALREADY_LOCKED.
 *
 * Requirements:
 * `path` is terminated.
 */
VixError VixDiskLib_Unlink(VixDiskLibConnection connection,
                           const char *path);

/**
 * Makes a closed local disk larger. `capacity` is the new size in sectors; less than the present one gives
 * VIX_E_INVALID_ARG. If `updateGeometry` is not 0, the disk gets the geometry of a new one of that size.
 *
 * Children, disks that have a child in their folder, and stream-optimised, device and ESXi delta disks give
 * VIX_E_NOT_SUPPORTED; a disk that is open for writing gives VIX_E_FILE_ALREADY_LOCKED.
 *
 * Requirements:
 * `path` is terminated, `progressFunc` is NULL or callable during the call.
 */
VixError VixDiskLib_Grow(VixDiskLibConnection connection,
                         const char *path,
                         VixDiskLibSectorType capacity,
                         Bool updateGeometry,
                         VixDiskLibProgressFunc progressFunc,
                         void *progressCallbackData);

/**
 * Gives the space of grains that hold only zeros back: the file becomes shorter. The content stays as it is.
 *
 * The disk is open for writing. Other calls on it fail with VIX_E_OBJECT_IS_BUSY meanwhile, also inside `progressFunc`. A
 * disk that has no such grains, or is of a type that has none, is left as it is, and the result is VIX_OK. On a child,
 * zeros that hide data of a parent stay. While somebody else has the disk open, by itself or as a parent, the result is
 * VIX_E_FILE_ALREADY_LOCKED and nothing happens; opening it meanwhile gives the same.
 *
 * Requirements:
 * `progressFunc` is NULL or callable during the call.
 */
VixError VixDiskLib_Shrink(VixDiskLibHandle diskHandle,
                           VixDiskLibProgressFunc progressFunc,
                           void *progressCallbackData);

/**
 * Puts the grains of a disk in order, so that reading it in sequence reads its file in sequence.
 *
 * The disk is open for writing. Other calls on it fail with VIX_E_OBJECT_IS_BUSY meanwhile, also inside `progressFunc`. A
 * disk of a type that has no grains is left as it is, and the result is VIX_OK. While somebody else has the disk open, by
 * itself or as a parent, the result is VIX_E_FILE_ALREADY_LOCKED and nothing happens; opening it meanwhile gives the same.
 *
 * Requirements:
 * `progressFunc` is NULL or callable during the call.
 */
VixError VixDiskLib_Defragment(VixDiskLibHandle diskHandle,
                               VixDiskLibProgressFunc progressFunc,
                               void *progressCallbackData);

/**
 * Renames a local disk and its extents, also to another folder of the same file system. Children in the two folders
 * follow; others lose their parent.
 *
 * An existing target gives VIX_E_FILE_ALREADY_EXISTS, a disk that is open for writing VIX_E_FILE_ALREADY_LOCKED, a file
 * system whose files have one name only VIX_E_NOT_SUPPORTED.
 *
 * Requirements:
 * Both names are terminated.
 */
VixError VixDiskLib_Rename(const char *srcFileName,
                           const char *dstFileName);

/**
 * Copies a disk, with its parents as one, to a new disk. `createParams` says what the copy shall be: kind, adapter and
 * hardware version; NULL means one growing file with those of the source. The capacity is that of the source in any case.
 * Grains of zeros take no space in kinds that grow. The copy has an identity of its own.
 *
 * An existing target is refused with VIX_E_FILE_ALREADY_EXISTS, or with `overWrite` replaced once the copy is complete.
 * After a failure there is no copy, and what existed is untouched. `progressFunc` is called on this thread, with 100 last.
 *
 * Either side may be an export of an NBD server. As a target it is always there, so `overWrite` is needed; it must be as large
 * as the source or larger, `createParams` mean nothing to it, and a failure leaves it half written.
 *
 * Requirements:
 * The paths are terminated, `createParams` is NULL or a structure of this header, `progressFunc` is NULL or callable during
 * the call.
 */
VixError VixDiskLib_Clone(VixDiskLibConnection dstConnection,
                          const char *dstPath,
                          VixDiskLibConnection srcConnection,
                          const char *srcPath,
                          const struct VixDiskLibCreateParams *createParams,
                          VixDiskLibProgressFunc progressFunc,
                          void *progressCallbackData,
                          Bool overWrite);

/**
 * Bytes that a copy of the disk would take. `cloneDiskType` VIXDISKLIB_DISK_UNKNOWN means the type of the disk.
 *
 * For types that grow, the data of the disk is read to find zeros, and for streamOptimized it is also compressed: the answer
 * is exact and takes as long as that takes.
 *
 * Requirements:
 * `spaceNeeded` can be written.
 */
VixError VixDiskLib_SpaceNeededForClone(VixDiskLibHandle diskHandle,
                                        VixDiskLibDiskType cloneDiskType,
                                        uint64 *spaceNeeded);

/**
 * Whether VixDiskLib_Attach would work: VIX_OK, or the code with which it would fail. Both disks stay as they are.
 *
 * Requirements:
 * Any values may be passed.
 */
VixError VixDiskLib_IsAttachPossible(VixDiskLibHandle parent,
                                     VixDiskLibHandle child);

/**
 * Puts the chain of `child`, opened with VIXDISKLIB_FLAG_OPEN_SINGLE_LINK, on top of the chain of `parent`.
 *
 * Afterwards `child` stands for both together and `parent` for nothing, also after a failure; closing `parent` is still
 * allowed, once. VIX_E_DISK_ATTACH_ROOTLINK: the child has no parent or is open with it. VIX_E_DISK_CAPACITY_MISMATCH,
 * VIX_E_DISK_CID_MISMATCH: it is the child of another disk, or the parent has changed.
 *
 * Requirements:
 * Any values may be passed.
 */
VixError VixDiskLib_Attach(VixDiskLibHandle parent,
                           VixDiskLibHandle child);

/**
 * Checks a local disk, and mends it if `repair` is not 0. The report goes to the log, one line for each fault.
 *
 * Without `repair`, VIX_OK says that the check was made, not that the disk is sound. With `repair`, VIX_OK says that
 * nothing is wrong any more, and VIX_E_DISK_CANTREPAIR that something is left that could be mended only by guessing.
 * Only the named link is mended; a content id that does not fit its parent is reported and left.
 *
 * Requirements:
 * `filename` is terminated.
 */
VixError VixDiskLib_CheckRepair(VixDiskLibConnection connection,
                                const char *filename,
                                Bool repair);

#ifdef __cplusplus
} /* extern "C" */
#endif /* __cplusplus */

#endif  /* _VIXDISKLIB_H_ */
