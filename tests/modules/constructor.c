/*
 * A shared library that is no PKCS#11 module, and does something as soon as it is loaded: it writes the file that
 * CONSTRUCTOR_MARKER names. What it has of a module is
 * chosen by a macro.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

__attribute__((constructor)) static void run(void)
{
	const char *marker = getenv("CONSTRUCTOR_MARKER");

	if (marker != NULL)
		close(open(marker, O_WRONLY | O_CREAT, 0600));
}

#ifdef IMPORTS
extern unsigned long C_GetFunctionList(void *);

unsigned long use_another_module(void *list)
{
	return C_GetFunctionList(list);
}
#endif

#ifdef HIDDEN
__attribute__((visibility("hidden"))) unsigned long C_GetFunctionList(void *list)
{
	return list == NULL;
}

unsigned long use_own(void *list)
{
	return C_GetFunctionList(list);
}
#endif

#ifdef NEWER
unsigned long C_GetInterface(void *list)
{
	return list == NULL;
}
#endif

#ifdef MODULE
unsigned long C_GetFunctionList(void *list)
{
	return list == NULL;
}
#endif
