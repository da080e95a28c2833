/* A dynamic program that does nothing: what exec of one costs. */
int main(void)
{
	return 7;
}
