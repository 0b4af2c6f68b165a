/* Runs a fuzz target once over every file of a folder, without a fuzzer: replay FOLDER. */
#include "fuzz/fuzz.h"

#include <dirent.h>
#include <sys/stat.h>

static void fail(const char *what, const char *path) {
  fprintf(stderr, "replay: can't %s %s\n", what, path);
  exit(1);
}

/* The bytes are a block of their own exact size, so that AddressSanitizer sees a step beyond them. */
static void run_file(const char *path, size_t size) {
  FILE *file = fopen(path, "rb");
  uint8_t *bytes = malloc(size ? size : 1);
  if (!file || !bytes || fread(bytes, 1, size, file) != size)
    fail("read", path);
  fclose(file);
  LLVMFuzzerTestOneInput(bytes, size);
  free(bytes);
}

static int run_folder(const char *folder) {
  DIR *dir = opendir(folder);
  if (!dir)
    fail("open", folder);
  int count = 0;
  for (struct dirent *entry; (entry = readdir(dir));) {
    char path[4096];
    struct stat info;
    int n = snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
    if (n < 0 || (size_t)n >= sizeof(path) || stat(path, &info) != 0)
      fail("look at", entry->d_name);
    if (!S_ISREG(info.st_mode))
      continue;
    run_file(path, (size_t)info.st_size);
    count++;
  }
  closedir(dir);
  return count;
}

int main(int argc, char **argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
    return 2;
  }
  int count = run_folder(argv[1]);
  printf("%d inputs of %s\n", count, argv[1]);
  return count ? 0 : 1;
}
