/* Prints every address of each name given, by the C library it was built with; or why there is none. */
#include <netdb.h>
#include <stdio.h>

int main(int count, char **names)
{
	int failed = 0;
	for (int i = 1; i < count; i++) {
		struct addrinfo *list, hints = {.ai_socktype = SOCK_STREAM};
		int code = getaddrinfo(names[i], 0, &hints, &list);
		if (code) {
			printf("%s: %s\n", names[i], gai_strerror(code));
			failed = 1;
			continue;
		}
		for (; list; list = list->ai_next) {
			char text[256];
			getnameinfo(list->ai_addr, list->ai_addrlen, text, sizeof text, 0, 0, NI_NUMERICHOST);
			char back[256] = "";
			getnameinfo(list->ai_addr, list->ai_addrlen, back, sizeof back, 0, 0, NI_NAMEREQD);
			printf("%s %s %s\n", names[i], text, back);
		}
	}
	return failed;
}
