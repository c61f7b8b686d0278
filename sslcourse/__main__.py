from sslcourse.cli import main

main()
