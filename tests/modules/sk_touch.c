/*
 * A library for FIDO keys [sk-api.h] in front of OpenSSH's sk-dummy: with a PIN, a touch, and a plug.
 *
 * It is governed by files in FOLDER: `pin` has the PIN it wants, if it is there; while `untouched` is there it
 * waits; while `out` is there it has no authenticator. Each signature adds a line to `calls`: the PIN it got.
 */

#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PIN_REQUIRED -3
#define DEVICE_NOT_FOUND -4

struct sk_enroll_response;
struct sk_sign_response;
struct sk_resident_key;
struct sk_option;

static void *
dummy(const char *name)
{
	void *library = dlopen(SK_DUMMY, RTLD_NOW);

	return library == NULL ? NULL : dlsym(library, name);
}

static int
there(const char *name)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", FOLDER, name);
	return access(path, F_OK) == 0;
}

static void
note(const char *pin)
{
	FILE *calls = fopen(FOLDER "/calls", "a");

	if (calls != NULL) {
		fprintf(calls, "%s\n", pin == NULL || *pin == '\0' ? "none" : pin);
		fclose(calls);
	}
}

static int
is_right(const char *pin)
{
	char wanted[64] = "";
	FILE *file = fopen(FOLDER "/pin", "r");

	if (file == NULL)
		return 1;
	if (fgets(wanted, sizeof(wanted), file) == NULL)
		wanted[0] = '\0';
	fclose(file);
	return pin != NULL && strcmp(pin, wanted) == 0;
}

uint32_t
sk_api_version(void)
{
	uint32_t (*version)(void) = dummy("sk_api_version");

	return version();
}

int
sk_enroll(uint32_t alg, const uint8_t *challenge, size_t challenge_len, const char *application, uint8_t flags,
    const char *pin, struct sk_option **options, struct sk_enroll_response **response)
{
	int (*enroll)(uint32_t, const uint8_t *, size_t, const char *, uint8_t, const char *, struct sk_option **,
	    struct sk_enroll_response **) = dummy("sk_enroll");

	return enroll(alg, challenge, challenge_len, application, flags, pin, options, response);
}

int
sk_sign(uint32_t alg, const uint8_t *data, size_t data_len, const char *application, const uint8_t *handle,
    size_t handle_len, uint8_t flags, const char *pin, struct sk_option **options,
    struct sk_sign_response **response)
{
	int (*sign)(uint32_t, const uint8_t *, size_t, const char *, const uint8_t *, size_t, uint8_t, const char *,
	    struct sk_option **, struct sk_sign_response **) = dummy("sk_sign");

	if (there("out"))
		return DEVICE_NOT_FOUND;
	note(pin);
	if (!is_right(pin))
		return PIN_REQUIRED;
	while (there("untouched"))
		usleep(10000);
	return sign(alg, data, data_len, application, handle, handle_len, flags, pin, options, response);
}

int
sk_load_resident_keys(const char *pin, struct sk_option **options, struct sk_resident_key ***keys, size_t *count)
{
	int (*load)(const char *, struct sk_option **, struct sk_resident_key ***, size_t *) =
	    dummy("sk_load_resident_keys");

	return load(pin, options, keys, count);
}
