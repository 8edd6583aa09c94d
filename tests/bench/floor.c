/* The least that the kernel lets a watching daemon get away with.
 *
 *   floor watch DIR    watches every directory below DIR, on four threads, and prints the seconds
 *   floor read DIR     watches likewise, prints "ready", reads events until its input ends, and
 *                      prints the microseconds of CPU that reading took
 *   floor walk DIR     reads the state of every file below DIR, on four threads, and prints the seconds
 *   floor traffic DIR  writes to files below DIR for ten seconds, at most 100,000 times a second, and
 *                      prints how often a second
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { THREADS = 4, RATE = 100000, SECONDS = 10, PLACES = 100, NAMES = 200 };

static int instance = -1;
static char **stack;
static size_t depth, room, open_directories;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

static void push(char *path)
{
	pthread_mutex_lock(&lock);
	if (depth == room) {
		room = room ? room * 2 : 1024;
		stack = realloc(stack, room * sizeof *stack);
	}
	stack[depth++] = path;
	open_directories++;
	pthread_cond_signal(&changed);
	pthread_mutex_unlock(&lock);
}

static void *walk(void *unused)
{
	(void)unused;
	for (;;) {
		pthread_mutex_lock(&lock);
		while (depth == 0 && open_directories > 0)
			pthread_cond_wait(&changed, &lock);
		if (depth == 0) {
			pthread_cond_broadcast(&changed);
			pthread_mutex_unlock(&lock);
			return NULL;
		}
		char *path = stack[--depth];
		pthread_mutex_unlock(&lock);

		if (instance >= 0)
			inotify_add_watch(instance, path,
				  IN_ATTRIB | IN_CLOSE_WRITE | IN_CREATE | IN_DELETE | IN_DELETE_SELF |
				  IN_MOVED_FROM | IN_MOVED_TO | IN_DONT_FOLLOW | IN_ONLYDIR);
		DIR *directory = opendir(path);
		struct dirent *entry;
		while (directory && (entry = readdir(directory))) {
			char *below;
			struct stat state;
			if (instance < 0)
				fstatat(dirfd(directory), entry->d_name, &state, AT_SYMLINK_NOFOLLOW);
			if (entry->d_type != DT_DIR || !strcmp(entry->d_name, ".") ||
			    !strcmp(entry->d_name, ".."))
				continue;
			if (asprintf(&below, "%s/%s", path, entry->d_name) > 0)
				push(below);
		}
		if (directory)
			closedir(directory);
		free(path);
		pthread_mutex_lock(&lock);
		if (--open_directories == 0)
			pthread_cond_broadcast(&changed);
		pthread_mutex_unlock(&lock);
	}
}

static double now(clockid_t clock)
{
	struct timespec time;
	clock_gettime(clock, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

/* Closing a file that was open for writing is an event; equal ones that wait are one for fanotify. */
static int traffic(const char *top)
{
	char path[PATH_MAX];
	long count = 0;
	double start = now(CLOCK_MONOTONIC), end = start + SECONDS, time;
	for (int n = 0; n < PLACES; n++) {
		snprintf(path, sizeof path, "%s/%d", top, n);
		mkdir(path, 0700);
	}
	while ((time = now(CLOCK_MONOTONIC)) < end) {
		if (count > (time - start) * RATE) {
			usleep(200);
			continue;
		}
		for (int n = 0; n < 100; n++, count++) {
			snprintf(path, sizeof path, "%s/%ld/%ld", top, count % PLACES,
				 count / PLACES % NAMES);
			close(open(path, O_WRONLY | O_CREAT, 0600));
		}
	}
	printf("%f\n", count / (now(CLOCK_MONOTONIC) - start));
	return 0;
}

int main(int argc, char **argv)
{
	if (argc != 3)
		return 2;
	if (!strcmp(argv[1], "traffic"))
		return traffic(argv[2]);
	double start = now(CLOCK_MONOTONIC);
	pthread_t threads[THREADS];
	if (strcmp(argv[1], "walk"))
		instance = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	push(strdup(argv[2]));
	for (int n = 0; n < THREADS; n++)
		pthread_create(&threads[n], NULL, walk, NULL);
	for (int n = 0; n < THREADS; n++)
		pthread_join(threads[n], NULL);
	if (strcmp(argv[1], "read")) {
		printf("%f\n", now(CLOCK_MONOTONIC) - start);
		return 0;
	}

	static char buffer[1 << 18];
	struct pollfd fds[] = { { instance, POLLIN, 0 }, { 0, POLLIN, 0 } };
	double before = now(CLOCK_PROCESS_CPUTIME_ID);
	puts("ready");
	fflush(stdout);
	while (poll(fds, 2, -1) > 0 && !fds[1].revents) {
		while (read(instance, buffer, sizeof buffer) > 0)
			;
		usleep(4000);
	}
	printf("%f\n", (now(CLOCK_PROCESS_CPUTIME_ID) - before) * 1e6);
	return 0;
}
