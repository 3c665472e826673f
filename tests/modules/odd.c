/*
 * A PKCS#11 module that is SoftHSM, with the tokens of SOFTHSM2_CONF, and has the odd habits that the environment
 * variable ODD_HABITS names, each by one word that other modules were seen with:
 *
 *   one-session       C_OpenSession refuses a second session (CKR_SESSION_COUNT)
 *   no-session        C_OpenSession refuses every session
 *   logged-in         C_Login says CKR_USER_ALREADY_LOGGED_IN, after it has logged in
 *   broken-login      C_Login says CKR_GENERAL_ERROR
 *   no-token          objects have no CKA_TOKEN: searches by it find nothing
 *   no-sign           CKA_SIGN cannot be read
 *   whole-or-nothing  C_GetAttributeValue fills in nothing if one of the attributes does not exist
 *   gone              C_GetAttributeValue says CKR_DEVICE_REMOVED
 *   no-always         CKA_ALWAYS_AUTHENTICATE does not exist
 *   eager-sign        C_Sign answers a question for the length with a signature, and the operation is over
 *   no-ecdsa          CKM_ECDSA is not in C_GetMechanismList, and C_SignInit refuses it
 *   no-mechanisms     C_GetMechanismList is not supported
 *   same-names        all keys have the same CKA_ID and CKA_LABEL
 *   removable         slots are ones that tokens can be removed from
 *   slow              every call takes a tenth of a second
 *   slow-end          C_Finalize takes five seconds
 *
 * Each call of a function below is a line "pid C_Xxx detail" in the file that ODD_CALLS names.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <p11-kit/pkcs11.h>

static CK_FUNCTION_LIST *real;
static CK_FUNCTION_LIST list;
static int sessions;

static int has(const char *habit)
{
	const char *habits = getenv("ODD_HABITS"), *found;
	size_t length = strlen(habit);

	for (found = habits; found != NULL && (found = strstr(found, habit)) != NULL; found += length)
		if ((found == habits || found[-1] == ' ') && (found[length] == ' ' || found[length] == '\0'))
			return 1;
	return 0;
}

static void enter(const char *function, unsigned long detail)
{
	const char *path = getenv("ODD_CALLS");
	char line[128];
	int fd, length;

	if (has("slow"))
		usleep(100000);
	if (path == NULL || (fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600)) < 0)
		return;
	length = snprintf(line, sizeof(line), "%d %s %lu\n", (int)getpid(), function, detail);
	if (write(fd, line, length) != length)
		abort();
	close(fd);
}

#define COUNTED(name, parameters, arguments, detail)	\
	static CK_RV odd_##name parameters		\
	{						\
		enter(#name, detail);			\
		return real->name arguments;		\
	}

COUNTED(C_Initialize, (void *args), (args), 0)
COUNTED(C_GetSlotList, (CK_BBOOL present, CK_SLOT_ID *slots, CK_ULONG *count), (present, slots, count), 0)
COUNTED(C_GetTokenInfo, (CK_SLOT_ID slot, CK_TOKEN_INFO *info), (slot, info), 0)
COUNTED(C_Logout, (CK_SESSION_HANDLE session), (session), 0)
COUNTED(C_FindObjects, (CK_SESSION_HANDLE session, CK_OBJECT_HANDLE *objects, CK_ULONG most, CK_ULONG *count),
    (session, objects, most, count), 0)
COUNTED(C_FindObjectsFinal, (CK_SESSION_HANDLE session), (session), 0)

static CK_RV odd_C_Finalize(void *args)
{
	enter("C_Finalize", 0);
	if (has("slow-end"))
		usleep(5000000);
	return real->C_Finalize(args);
}

static CK_RV odd_C_GetSlotInfo(CK_SLOT_ID slot, CK_SLOT_INFO *info)
{
	CK_RV rv;

	enter("C_GetSlotInfo", 0);
	rv = real->C_GetSlotInfo(slot, info);
	if (rv == CKR_OK && has("removable"))
		info->flags |= CKF_REMOVABLE_DEVICE;
	return rv;
}

static CK_RV odd_C_GetMechanismList(CK_SLOT_ID slot, CK_MECHANISM_TYPE *mechanisms, CK_ULONG *count)
{
	CK_ULONG i;
	CK_RV rv;

	enter("C_GetMechanismList", 0);
	if (has("no-mechanisms"))
		return CKR_FUNCTION_NOT_SUPPORTED;
	rv = real->C_GetMechanismList(slot, mechanisms, count);
	for (i = 0; rv == CKR_OK && mechanisms != NULL && has("no-ecdsa") && i < *count; i++)
		if (mechanisms[i] == CKM_ECDSA)
			mechanisms[i] = CKM_SHA_1;
	return rv;
}

static CK_RV odd_C_OpenSession(CK_SLOT_ID slot, CK_FLAGS flags, void *application, CK_NOTIFY notify,
    CK_SESSION_HANDLE *session)
{
	CK_RV rv;

	enter("C_OpenSession", 0);
	if (has("no-session") || (has("one-session") && sessions > 0))
		return CKR_SESSION_COUNT;
	rv = real->C_OpenSession(slot, flags, application, notify, session);
	sessions += rv == CKR_OK;
	return rv;
}

static CK_RV odd_C_CloseSession(CK_SESSION_HANDLE session)
{
	enter("C_CloseSession", 0);
	sessions--;
	return real->C_CloseSession(session);
}

static CK_RV odd_C_Login(CK_SESSION_HANDLE session, CK_USER_TYPE user, unsigned char *pin, CK_ULONG length)
{
	CK_RV rv;

	enter("C_Login", user);
	if (has("broken-login"))
		return CKR_GENERAL_ERROR;
	rv = real->C_Login(session, user, pin, length);
	return rv == CKR_OK && has("logged-in") ? CKR_USER_ALREADY_LOGGED_IN : rv;
}

static CK_RV odd_C_FindObjectsInit(CK_SESSION_HANDLE session, CK_ATTRIBUTE *template, CK_ULONG count)
{
	static CK_OBJECT_CLASS none = CKO_VENDOR_DEFINED;
	CK_ATTRIBUTE nothing = { CKA_CLASS, &none, sizeof(none) };
	CK_ATTRIBUTE kept[8];
	CK_ULONG i, left = 0;

	enter("C_FindObjectsInit", count);
	for (i = 0; i < count && i < 8; i++) {
		if (template[i].type == CKA_TOKEN && has("no-token"))
			return real->C_FindObjectsInit(session, &nothing, 1);
		if (template[i].type != CKA_ID || !has("same-names"))
			kept[left++] = template[i];
	}
	return real->C_FindObjectsInit(session, kept, left);
}

static int exists(CK_ATTRIBUTE_TYPE type)
{
	return !(type == CKA_SIGN && has("no-sign")) && !(type == CKA_TOKEN && has("no-token")) &&
	    !(type == CKA_ALWAYS_AUTHENTICATE && has("no-always"));
}

static CK_RV odd_C_GetAttributeValue(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object, CK_ATTRIBUTE *template,
    CK_ULONG count)
{
	CK_RV rv = CKR_OK, one;
	CK_ULONG i;

	enter("C_GetAttributeValue", object);
	if (has("gone"))
		return CKR_DEVICE_REMOVED;
	if (has("whole-or-nothing"))
		for (i = 0; i < count; i++) {
			CK_ATTRIBUTE length = { template[i].type, NULL, 0 };
			if (!exists(length.type) || real->C_GetAttributeValue(session, object, &length, 1) != CKR_OK)
				return CKR_ATTRIBUTE_TYPE_INVALID;
		}
	for (i = 0; i < count; i++) {
		if (has("same-names") && (template[i].type == CKA_ID || template[i].type == CKA_LABEL)) {
			if (template[i].pValue != NULL)
				memcpy(template[i].pValue, "same", 4);
			template[i].ulValueLen = 4;
			continue;
		}
		one = CKR_ATTRIBUTE_TYPE_INVALID;
		if (exists(template[i].type))
			one = real->C_GetAttributeValue(session, object, &template[i], 1);
		else
			template[i].ulValueLen = CK_UNAVAILABLE_INFORMATION;
		if (one != CKR_OK)
			rv = one;
	}
	return rv;
}

static CK_RV odd_C_SignInit(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key)
{
	enter("C_SignInit", key);
	if (mechanism != NULL && mechanism->mechanism == CKM_ECDSA && has("no-ecdsa"))
		return CKR_MECHANISM_INVALID;
	return real->C_SignInit(session, mechanism, key);
}

static CK_RV odd_C_Sign(CK_SESSION_HANDLE session, unsigned char *data, CK_ULONG data_length,
    unsigned char *signature, CK_ULONG *length)
{
	unsigned char made[4096];

	enter("C_Sign", signature == NULL ? 0 : *length);
	if (signature == NULL && has("eager-sign")) {
		*length = sizeof(made);
		return real->C_Sign(session, data, data_length, made, length);
	}
	return real->C_Sign(session, data, data_length, signature, length);
}

CK_RV C_GetFunctionList(CK_FUNCTION_LIST **out)
{
	CK_RV (*get)(CK_FUNCTION_LIST **);
	void *softhsm = dlopen(SOFTHSM, RTLD_NOW | RTLD_LOCAL);
	CK_RV rv;

	if (softhsm == NULL || (get = (CK_RV (*)(CK_FUNCTION_LIST **))dlsym(softhsm, "C_GetFunctionList")) == NULL)
		return CKR_GENERAL_ERROR;
	if ((rv = get(&real)) != CKR_OK)
		return rv;
	list = *real;
	list.C_Initialize = odd_C_Initialize;
	list.C_Finalize = odd_C_Finalize;
	list.C_GetSlotList = odd_C_GetSlotList;
	list.C_GetSlotInfo = odd_C_GetSlotInfo;
	list.C_GetTokenInfo = odd_C_GetTokenInfo;
	list.C_GetMechanismList = odd_C_GetMechanismList;
	list.C_OpenSession = odd_C_OpenSession;
	list.C_CloseSession = odd_C_CloseSession;
	list.C_Login = odd_C_Login;
	list.C_Logout = odd_C_Logout;
	list.C_FindObjectsInit = odd_C_FindObjectsInit;
	list.C_FindObjects = odd_C_FindObjects;
	list.C_FindObjectsFinal = odd_C_FindObjectsFinal;
	list.C_GetAttributeValue = odd_C_GetAttributeValue;
	list.C_SignInit = odd_C_SignInit;
	list.C_Sign = odd_C_Sign;
	*out = &list;
	return CKR_OK;
}
