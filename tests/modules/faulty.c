/*
 * A PKCS#11 module that is SoftHSM, with the tokens of the softhsm2.conf in the folder that FAULTY_MODULE_DIR
 * names, else in its own, until a test tells it otherwise through files in that folder, read afresh at every call:
 *
 *   C_Xxx    what that function does: "sleep SECONDS" first, "hang", "crash", or "fail CK_RV" (in hex);
 *            with "once " in front the file is deleted, so only the next call does it
 *   flags    token flags (hex) to report on top of SoftHSM's
 *   keypad   a PIN: the token reports a keypad of its own, on which a person always types that PIN
 *   label    the bytes every object has for its CKA_LABEL
 *   out      the token is out of its slot
 *   fixed    it cannot be removed from its slot, which SoftHSM says of its own
 *   prints   what is written to standard error whenever the slots are listed
 *   forged   what is sent to the agent in place of an answer whenever the slots are listed
 *   objects  a number: each search finds so many objects, RSA keys that are all different
 *
 * The functions below that may be told so append a line "pid C_Xxx CK_RV" to the file "calls", when they have
 * been entered ("-" for the CK_RV) and when they return.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <p11-kit/pkcs11.h>

#define COPIES 65536	/* SoftHSM's handles are less */

static CK_FUNCTION_LIST *real;
static CK_FUNCTION_LIST list;
static long left = -1;	/* of the objects of a search; -1 before its beginning */

static const char *steering_folder(void)
{
	static char folder[512];
	const char *named = getenv("FAULTY_MODULE_DIR");
	Dl_info self;
	char *slash;

	if (named != NULL)
		return named;
	if (folder[0] == '\0' && dladdr(&real, &self) != 0) {
		snprintf(folder, sizeof(folder), "%s", self.dli_fname);
		if ((slash = strrchr(folder, '/')) != NULL)
			*slash = '\0';
	}
	return folder;
}

/* Reads at most size - 1 bytes of a steering file; returns their number, or -1 where there is no such file. */
static ssize_t read_order(const char *name, char *buffer, size_t size, char *path, size_t path_size)
{
	ssize_t count;
	int fd;

	snprintf(path, path_size, "%s/%s", steering_folder(), name);
	if ((fd = open(path, O_RDONLY | O_CLOEXEC)) < 0)
		return -1;
	count = read(fd, buffer, size - 1);
	close(fd);
	if (count >= 0)
		buffer[count] = '\0';
	return count;
}

static void note(const char *name, const char *outcome)
{
	char path[512], line[128];
	int fd, length;

	snprintf(path, sizeof(path), "%s/calls", steering_folder());
	if ((fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600)) < 0)
		return;
	length = snprintf(line, sizeof(line), "%d %s %s\n", (int)getpid(), name, outcome);
	if (write(fd, line, length) != length)
		abort();
	close(fd);
}

/* What happens instead of, or before, the real function. */
static CK_RV enter(const char *name)
{
	char order[64], path[512], *rest = order;

	note(name, "-");
	if (strcmp(name, "C_FindObjectsInit") == 0)
		left = -1;
	if (read_order(name, order, sizeof(order), path, sizeof(path)) < 0)
		return CKR_OK;
	if (strncmp(rest, "once ", 5) == 0) {
		unlink(path);
		rest += 5;
	}
	if (strncmp(rest, "sleep ", 6) == 0)
		usleep((useconds_t)(atof(rest + 6) * 1e6));
	else if (strncmp(rest, "hang", 4) == 0)
		for (;;)
			pause();
	else if (strncmp(rest, "crash", 5) == 0)
		*(volatile int *)0 = 0;
	else if (strncmp(rest, "fail ", 5) == 0)
		return strtoul(rest + 5, NULL, 16);
	return CKR_OK;
}

static CK_RV leave(const char *name, CK_RV rv)
{
	char outcome[32];

	snprintf(outcome, sizeof(outcome), "0x%lx", rv);
	note(name, outcome);
	return rv;
}

#define STEERED(name, parameters, arguments)			\
	static CK_RV faulty_##name parameters			\
	{							\
		CK_RV rv = enter(#name);			\
		if (rv == CKR_OK)				\
			rv = real->name arguments;		\
		return leave(#name, rv);			\
	}

/* The only socket of this process is its connection to the agent. */
static void forge(const char *text, ssize_t length)
{
	int fd;

	for (fd = 3; fd < 1024; fd++)
		if (send(fd, text, length, MSG_NOSIGNAL) == length)
			for (;;)
				pause();
	abort();
}

STEERED(C_Initialize, (void *args), (args))
static CK_RV faulty_C_GetSlotList(CK_BBOOL present, CK_SLOT_ID *slots, CK_ULONG *count)
{
	static char text[1024 * 1024];
	char path[512];
	ssize_t length = read_order("prints", text, sizeof(text), path, sizeof(path));
	CK_RV rv = enter("C_GetSlotList");

	if (length > 0)
		fprintf(stderr, "%s", text);
	if ((length = read_order("forged", text, sizeof(text), path, sizeof(path))) >= 0)
		forge(text, length);
	if (rv == CKR_OK)
		rv = real->C_GetSlotList(present, slots, count);
	return leave("C_GetSlotList", rv);
}

STEERED(C_OpenSession, (CK_SLOT_ID slot, CK_FLAGS flags, void *application, CK_NOTIFY notify,
    CK_SESSION_HANDLE *session), (slot, flags, application, notify, session))
STEERED(C_FindObjectsInit, (CK_SESSION_HANDLE session, CK_ATTRIBUTE *template, CK_ULONG count),
    (session, template, count))
STEERED(C_SignInit, (CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key),
    (session, mechanism, key % COPIES))

STEERED(C_GenerateKeyPair, (CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_ATTRIBUTE *public,
    CK_ULONG public_count, CK_ATTRIBUTE *private, CK_ULONG private_count, CK_OBJECT_HANDLE *public_key,
    CK_OBJECT_HANDLE *private_key),
    (session, mechanism, public, public_count, private, private_count, public_key, private_key))

static CK_RV faulty_C_Sign(CK_SESSION_HANDLE session, unsigned char *data, CK_ULONG data_length,
    unsigned char *signature, CK_ULONG *length)
{
	CK_RV rv;

	if (signature == NULL)	/* only asks how long it would be */
		return real->C_Sign(session, data, data_length, signature, length);
	rv = enter("C_Sign");
	if (rv == CKR_OK)
		rv = real->C_Sign(session, data, data_length, signature, length);
	return leave("C_Sign", rv);
}

static CK_RV faulty_C_Login(CK_SESSION_HANDLE session, CK_USER_TYPE user, unsigned char *pin, CK_ULONG length)
{
	char keypad[64], path[512];
	ssize_t typed;
	CK_RV rv = enter("C_Login");

	if (pin == NULL && (typed = read_order("keypad", keypad, sizeof(keypad), path, sizeof(path))) >= 0) {
		pin = (unsigned char *)keypad;
		length = typed;
	}
	if (rv == CKR_OK)
		rv = real->C_Login(session, user, pin, length);
	return leave("C_Login", rv);
}

static int is_out(void)
{
	char order[2], path[512];

	return read_order("out", order, sizeof(order), path, sizeof(path)) >= 0;
}

static CK_RV faulty_C_GetSlotInfo(CK_SLOT_ID slot, CK_SLOT_INFO *info)
{
	char order[2], path[512];
	CK_RV rv = real->C_GetSlotInfo(slot, info);

	if (rv == CKR_OK && read_order("fixed", order, sizeof(order), path, sizeof(path)) < 0)
		info->flags |= CKF_REMOVABLE_DEVICE;
	if (rv == CKR_OK && is_out())
		info->flags &= ~CKF_TOKEN_PRESENT;
	return rv;
}

static CK_RV faulty_C_GetTokenInfo(CK_SLOT_ID slot, CK_TOKEN_INFO *info)
{
	char flags[64], path[512];
	CK_RV rv = enter("C_GetTokenInfo");

	if (rv == CKR_OK && is_out())
		rv = CKR_TOKEN_NOT_PRESENT;
	if (rv == CKR_OK)
		rv = real->C_GetTokenInfo(slot, info);
	if (rv == CKR_OK && read_order("flags", flags, sizeof(flags), path, sizeof(path)) >= 0)
		info->flags |= strtoul(flags, NULL, 16);
	if (rv == CKR_OK && read_order("keypad", flags, sizeof(flags), path, sizeof(path)) >= 0)
		info->flags |= CKF_PROTECTED_AUTHENTICATION_PATH;
	return leave("C_GetTokenInfo", rv);
}

static CK_RV faulty_C_GetAttributeValue(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object,
    CK_ATTRIBUTE *template, CK_ULONG count)
{
	static char label[1024 * 1024];
	char path[512];
	ssize_t length = read_order("label", label, sizeof(label), path, sizeof(path));
	CK_ULONG copy = object / COPIES, i, byte;
	CK_RV rv = CKR_OK;

	object %= COPIES;
	if (length < 0 && copy == 0)
		return real->C_GetAttributeValue(session, object, template, count);
	for (i = 0; i < count; i++) {
		CK_RV one;
		if (template[i].type != CKA_LABEL || length < 0) {
			one = real->C_GetAttributeValue(session, object, &template[i], 1);
			if (one == CKR_OK && template[i].type == CKA_MODULUS && template[i].pValue != NULL)
				for (byte = 0; byte < sizeof(copy); byte++)
					((unsigned char *)template[i].pValue)[8 + byte] ^= copy >> (8 * byte);
		} else if (template[i].pValue != NULL && template[i].ulValueLen < (CK_ULONG)length) {
			one = CKR_BUFFER_TOO_SMALL;
		} else {
			one = CKR_OK;
			if (template[i].pValue != NULL)
				memcpy(template[i].pValue, label, length);
			template[i].ulValueLen = length;
		}
		if (one != CKR_OK)
			rv = one;
	}
	return rv;
}

/* The objects of the copies have handles of their own, from which the real one can be told. */
static CK_RV faulty_C_FindObjects(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE *objects, CK_ULONG most,
    CK_ULONG *count)
{
	static CK_OBJECT_HANDLE copied;
	char order[64], path[512];
	CK_RV rv;

	if (read_order("objects", order, sizeof(order), path, sizeof(path)) < 0)
		return real->C_FindObjects(session, objects, most, count);
	if (left < 0) {
		if ((rv = real->C_FindObjects(session, &copied, 1, count)) != CKR_OK || *count == 0)
			return rv;
		left = atol(order);
	}
	for (*count = 0; *count < most && left > 0; left--)
		objects[(*count)++] = copied + COPIES * left;
	return CKR_OK;
}

CK_RV C_GetFunctionList(CK_FUNCTION_LIST **out)
{
	CK_RV (*get)(CK_FUNCTION_LIST **);
	char conf[512];
	void *softhsm;
	CK_RV rv;

	snprintf(conf, sizeof(conf), "%s/softhsm2.conf", steering_folder());
	setenv("SOFTHSM2_CONF", conf, 1);
	softhsm = dlopen(SOFTHSM, RTLD_NOW | RTLD_LOCAL);
	if (softhsm == NULL || (get = (CK_RV (*)(CK_FUNCTION_LIST **))dlsym(softhsm, "C_GetFunctionList")) == NULL)
		return CKR_GENERAL_ERROR;
	if ((rv = get(&real)) != CKR_OK)
		return rv;
	list = *real;
	list.C_Initialize = faulty_C_Initialize;
	list.C_GetSlotList = faulty_C_GetSlotList;
	list.C_GetSlotInfo = faulty_C_GetSlotInfo;
	list.C_GetTokenInfo = faulty_C_GetTokenInfo;
	list.C_OpenSession = faulty_C_OpenSession;
	list.C_Login = faulty_C_Login;
	list.C_FindObjectsInit = faulty_C_FindObjectsInit;
	list.C_FindObjects = faulty_C_FindObjects;
	list.C_GetAttributeValue = faulty_C_GetAttributeValue;
	list.C_SignInit = faulty_C_SignInit;
	list.C_Sign = faulty_C_Sign;
	list.C_GenerateKeyPair = faulty_C_GenerateKeyPair;
	*out = &list;
	return CKR_OK;
}
