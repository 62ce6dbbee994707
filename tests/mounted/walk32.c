// A 32-bit program without large files. It needs no library: a host of 64 bits has none of 32 bits.
//
// It walks to each path that it is given, and through directories. For each entry it prints one line:
//
//     st_dev st_ino d_ino path
//
// The arguments have no d_ino, and it is 0 for them. Instead of a number that the kernel refuses to tell it prints the
// errno as a negative number.

typedef unsigned int u32;

struct stat32 {
    u32 dev, ino;
    unsigned short mode, nlink, uid, gid;
    u32 rest[20];
};

struct dirent32 {
    u32 ino, next;
    unsigned short length;
    char name[];
};

enum { EXIT = 1, WRITE = 4, OPEN = 5, CLOSE = 6, LSTAT = 107, GETDENTS = 141 };
enum { O_DIRECTORY = 0200000, S_IFMT = 0170000, S_IFDIR = 0040000, ENOTDIR = 20 };

static int call(int number, u32 a, u32 b, u32 c) {
    int result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c) : "memory");
    return result;
}

static char path[4096], line[8192];
static u32 used;

static void text(const char *from) {
    while (*from) line[used++] = *from++;
}

static void number(int negative, u32 value) {
    char digits[12];
    int count = 0;
    do digits[count++] = '0' + value % 10; while (value /= 10);
    if (negative) line[used++] = '-';
    while (count) line[used++] = digits[--count];
    line[used++] = ' ';
}

static void print(int error, const struct stat32 *stat, int unlisted, u32 d_ino) {
    used = 0;
    if (error < 0) number(1, -error), number(1, -error);
    else number(0, stat->dev), number(0, stat->ino);
    if (unlisted < 0) number(1, -unlisted);
    else number(0, d_ino);
    text(path);
    line[used++] = '\n';
    call(WRITE, 1, (u32)line, used);
}

static void walk(u32 length, u32 d_ino) {
    struct stat32 stat;
    int error = call(LSTAT, (u32)path, (u32)&stat, 0);
    print(error, &stat, 0, d_ino);
    if (error < 0 || (stat.mode & S_IFMT) != S_IFDIR) return;
    int dir = call(OPEN, (u32)path, O_DIRECTORY, 0);
    if (dir < 0) return print(0, &stat, dir, 0);
    char entries[32768];
    int bytes;
    while ((bytes = call(GETDENTS, dir, (u32)entries, sizeof entries)) > 0) {
        for (int at = 0; at < bytes;) {
            struct dirent32 *entry = (struct dirent32 *)(entries + at);
            at += entry->length;
            u32 end = length;
            path[end++] = '/';
            for (const char *from = entry->name; *from;) path[end++] = *from++;
            path[end] = 0;
            int dots = entry->name[0] == '.' && (!entry->name[1] || (entry->name[1] == '.' && !entry->name[2]));
            if (dots) {
                error = call(LSTAT, (u32)path, (u32)&stat, 0);
                print(error, &stat, 0, entry->ino);
            } else {
                walk(end, entry->ino);
            }
            path[length] = 0;
        }
    }
    if (bytes < 0) print(0, &stat, bytes, 0);
    call(CLOSE, dir, 0, 0);
}

__attribute__((used)) static void all(char **arguments) {
    while (*++arguments) {
        u32 length = 0;
        for (const char *from = *arguments; *from;) path[length++] = *from++;
        path[length] = 0;
        walk(length, 0);
    }
    call(EXIT, 0, 0, 0);
}

__asm__(".globl _start\n_start: lea 4(%esp), %eax\n and $-16, %esp\n sub $12, %esp\n push %eax\n call all\n");
